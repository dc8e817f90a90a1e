// node listen.mjs FILE: puts the server that FILE makes on a free port, and says where in the words of our own log.
// With CLUSTER_WORKERS, by node:cluster in so many processes.
import cluster from 'node:cluster';

const workers = Number(process.env.CLUSTER_WORKERS ?? 0);
if (workers > 0 && cluster.isPrimary) {
  let listening = 0;
  cluster.on('listening', (_worker, { port }) => {
    listening += 1;
    if (listening === workers) say(port);
  });
  for (let worker = 0; worker < workers; worker += 1) cluster.fork();
} else {
  const { default: makeServer } = await import(`./${process.argv[2]}`);
  const server = await makeServer();
  server.listen(0, '127.0.0.1', () => {
    if (workers === 0) say(server.address().port);
  });
}

function say(port) {
  console.log(`Accepting requests on http://127.0.0.1:${port}`);
}
