//! What the built-in responder says: the same answer to the same question, on every replica, without any service.

/// The part of the question that is said back, in characters.
const QUOTE_LEN_MAX: usize = 160;

/// The answer to a question. It only depends on the question, so any replica can finish what another began.
pub fn answer(question: &str) -> String {
    let trimmed = question.trim();
    let quote: String = trimmed.chars().take(QUOTE_LEN_MAX).collect();
    let ellipsis = if quote.len() < trimmed.len() { " …" } else { "" };
    let words = trimmed.split_whitespace().count();
    let letters = trimmed.chars().count();
    let longest = trimmed.split_whitespace().max_by_key(|word| word.chars().count()).unwrap_or_default();
    let longest: String = longest.chars().take(40).collect();
    let ending = ENDINGS[letters % ENDINGS.len()];
    let kind = if trimmed.ends_with('?') { "question" } else { "message" };
    format!(
        "You wrote: “{quote}{ellipsis}”.\n\nI am the built-in responder: I need no model and no network, and I always give \
         the same answer to the same {kind}. Yours has {words} {} and {letters} {}; its longest word is “{longest}”. {ending}",
        plural(words, "word"),
        plural(letters, "character"),
    )
}

const ENDINGS: [&str; 3] = [
    "Set RESPONDER=openai to let a language model answer here.",
    "Each word you see was sent as soon as it was made.",
    "If your connection breaks now, you will get the rest on any other replica.",
];

fn plural(count: usize, word: &str) -> String {
    if count == 1 { word.to_owned() } else { format!("{word}s") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_answer_speaks_of_the_question() {
        let text = answer("What is a lease?");
        assert!(text.contains("“What is a lease?”") && text.contains("4 words"), "{text}");
        assert!(answer("Hi").contains("1 word and 2 characters"));
    }

    proptest! {
        #[test]
        fn every_question_has_one_answer_of_bounded_length(question in "\\PC{0,400}") {
            let text = answer(&question);
            prop_assert_eq!(&text, &answer(&question));
            prop_assert!(!text.is_empty() && text.len() < 2_000);
        }
    }
}
