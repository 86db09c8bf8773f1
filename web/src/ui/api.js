// Requests to the service: who is logged in, fresh access tokens, and errors as people read them.

import { changeLogin, seenLogin } from "./login.js";

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

/** Requests as the user of this browser. */
export class Api extends EventTarget {
  get user() {
    return seenLogin()?.user ?? null;
  }

  async register(username, password) {
    await this.#enter("/api/auth/register", { username, password });
  }

  async login(username, password) {
    await this.#enter("/api/auth/login", { username, password });
  }

  async logout() {
    try {
      await this.request("POST", "/api/auth/logout");
    } finally {
      await changeLogin(() => null);
      this.#leave();
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
    const seen = seenLogin();
    if (seen && !anew && seen.expires_at - Date.now() > MARGIN_MS) return seen.access_token;
    let refusal = new Problem(401, { detail: "Please log in." });
    const login = await changeLogin(async (login) => {
      // Another window was faster, or has logged out.
      if (login?.access_token !== seen?.access_token || !login) return login;
      try {
        return lasting(await this.#send("POST", "/api/auth/refresh", { refresh_token: login.refresh_token }));
      } catch (error) {
        if (error.status !== 401) throw error;
        refusal = error;
        return null;
      }
    });
    if (login) return login.access_token;
    this.#leave();
    throw refusal;
  }

  async #enter(path, body) {
    const login = lasting(await this.#send("POST", path, body));
    await changeLogin(() => login);
  }

  #leave() {
    this.dispatchEvent(new Event("loggedout"));
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
}

/** A login with the time of its end, on the clock of this machine. */
function lasting(login) {
  return { ...login, expires_at: Date.now() + login.expires_in * 1000 };
}
