// The few things that both pages do with the document. Text of users only ever becomes text nodes.

export const byId = (id) => document.getElementById(id);

/** Makes an element: properties that exist are set, others become attributes; children are elements or text. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** Shows an error beside the form it belongs to; no text hides it. */
export function showProblem(place, text) {
  place.textContent = text ?? "";
  place.hidden = !text;
}

/** The state of a connection, as a word and a colour. */
export function showLink(place, state, text) {
  place.dataset.state = state;
  place.firstElementChild.textContent = text;
}
