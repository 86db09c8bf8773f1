// Renews the login again and again, as a window does whose token is about to end. `renewed` counts, `failure` says why it ended.
window.renewed = 0;
window.failure = null;
const renew = async () => {
  const { Api } = await import("/assets/api.js");
  const api = new Api();
  for (;;) {
    await api.freshToken();
    window.renewed += 1;
  }
};
renew().catch((error) => {
  window.failure = error.message;
});
return { isSecure: window.isSecureContext, hasLocks: "locks" in navigator };
