// The login of this browser: its windows share it, and change it one after the other. A refresh token is good once, and whoever sends a
// spent one ends the login.
//
// Web Locks exist on secure pages alone, and what one window writes to localStorage another may read late. IndexedDB has neither fault: a
// database goes to its next version when no other connection is open, so that the connection which took it there is a
// lock, until it is closed or its window is gone.

const DATABASE = "arena";
const STORE = "logins";
const MINE = "mine";
/** A copy that can be read at once. */
const SEEN = "arena.login";

/** The login as this window has seen it last, or null. Another may have changed it. */
export function seenLogin() {
  try {
    return JSON.parse(localStorage.getItem(SEEN));
  } catch {
    return null;
  }
}

/** Gives the login to `work` while no other window has it; what comes of that is the login from now on. Null: there is none. */
export async function changeLogin(work) {
  const lock = await takeLock();
  try {
    const login = await work((await read(lock)) ?? seenLogin());
    await write(lock, login);
    if (login) localStorage.setItem(SEEN, JSON.stringify(login));
    else localStorage.removeItem(SEEN);
    return login;
  } finally {
    lock.close();
  }
}

async function takeLock() {
  for (;;) {
    const lock = await openAs((await version()) + 1);
    if (lock) return lock;
  }
}

async function version() {
  const database = await resultOf(indexedDB.open(DATABASE));
  database.close();
  return database.version;
}

/** The database, if this connection took it to this version; null where another window was faster. */
async function openAs(version) {
  const asked = indexedDB.open(DATABASE, version);
  let raised = false;
  asked.onupgradeneeded = () => {
    raised = true;
    if (!asked.result.objectStoreNames.contains(STORE)) asked.result.createObjectStore(STORE);
  };
  try {
    const database = await resultOf(asked);
    if (raised) return database;
    database.close();
    return null;
  } catch (error) {
    if (error.name === "VersionError") return null;
    throw error;
  }
}

function read(database) {
  return resultOf(database.transaction(STORE).objectStore(STORE).get(MINE));
}

function write(database, login) {
  const transaction = database.transaction(STORE, "readwrite");
  const store = transaction.objectStore(STORE);
  if (login) store.put(login, MINE);
  else store.delete(MINE);
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error);
  });
}

function resultOf(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
