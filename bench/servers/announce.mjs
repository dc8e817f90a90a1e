/** Says where a server listens, in the words of our own log. */
export function announce(server) {
  console.log(`Accepting requests on http://127.0.0.1:${server.address().port}`);
}
