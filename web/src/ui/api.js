// Requests to the service: who is logged in, fresh access tokens, and errors as people read them.

const STORE = "arena.login";
/** A token is replaced this long before it ends. */
const MARGIN_MS = 60_000;

/** What the service said instead of a success. */
export class Problem extends Error {
  constructor(status, body) {
    const fields = (body?.errors ?? []).map((error) => `${error.field}: ${error.detail}`).join("; ");
    super(fields || body?.detail || body?.title || `The service answered with ${status}.`);
    this.status = status;
  }
}

/** The login of this browser; all its windows share it. */
export class Api extends EventTarget {
  get user() {
    return this.#login()?.user ?? null;
  }

  async register(username, password) {
    this.#keep(await this.#send("POST", "/api/auth/register", { username, password }));
  }

  async login(username, password) {
    this.#keep(await this.#send("POST", "/api/auth/login", { username, password }));
  }

  async logout() {
    try {
      await this.request("POST", "/api/auth/logout");
    } finally {
      this.#forget();
    }
  }

  /** A request as the user who is logged in. */
  async request(method, path, body) {
    try {
      return await this.#send(method, path, body, await this.#accessToken());
    } catch (error) {
      if (error.status !== 401) throw error;
      // The clock of this machine may be wrong, or the login was ended elsewhere: one try with a new token tells.
      return await this.#send(method, path, body, await this.#accessToken(true));
    }
  }

  async freshToken() {
    return this.#accessToken(true);
  }

  async #accessToken(anew = false) {
    const isGood = (login) => login && !anew && login.expires_at - Date.now() > MARGIN_MS;
    if (isGood(this.#login())) return this.#login().access_token;
    const known = this.#login()?.access_token;
    // A refresh token is good once: two windows must not use it both.
    return oneAtATime(async () => {
      const login = this.#login();
      if (!login) throw new Problem(401, { detail: "Please log in." });
      if (login.access_token !== known) return login.access_token;
      try {
        this.#keep(await this.#send("POST", "/api/auth/refresh", { refresh_token: login.refresh_token }));
      } catch (error) {
        if (error.status === 401) this.#forget();
        throw error;
      }
      return this.#login().access_token;
    });
  }

  async #send(method, path, body, token) {
    const headers = {};
    if (body !== undefined) headers["Content-Type"] = "application/json";
    if (token) headers.Authorization = `Bearer ${token}`;
    let answer;
    try {
      answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
    } catch {
      throw new Problem(0, { detail: "The service cannot be reached. Check your connection and try again." });
    }
    const text = await answer.text();
    let read = null;
    try {
      read = text ? JSON.parse(text) : null;
    } catch {
      // A page of something in between; the status says enough.
    }
    if (!answer.ok) throw new Problem(answer.status, read);
    return read;
  }

  #login() {
    try {
      return JSON.parse(localStorage.getItem(STORE));
    } catch {
      return null;
    }
  }

  #keep(answer) {
    const old = this.#login();
    const login = { ...old, ...answer, expires_at: Date.now() + answer.expires_in * 1000 };
    localStorage.setItem(STORE, JSON.stringify(login));
  }

  #forget() {
    localStorage.removeItem(STORE);
    this.dispatchEvent(new Event("loggedout"));
  }
}

let turn = Promise.resolve();

/** Runs `work` while no other window of this browser does. Locks need a secure page; without, this window keeps order. */
function oneAtATime(work) {
  if (navigator.locks) return navigator.locks.request("arena.refresh", work);
  const mine = turn.then(work, work);
  turn = mine.catch(() => {});
  return mine;
}
