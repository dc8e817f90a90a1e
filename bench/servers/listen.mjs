// node listen.mjs FILE: puts the server that FILE makes on a free port, and says where in the words of our own log.
const { default: makeServer } = await import(`./${process.argv[2]}`);
const server = await makeServer();
server.listen(0, '127.0.0.1', () => {
  console.log(`Accepting requests on http://127.0.0.1:${server.address().port}`);
});
