/** A handler with so many awaits, one inside the other. */
async function deeper(levels) {
  await undefined;
  if (levels > 1) await deeper(levels - 1);
}

export default {
  routes(router) {
    router.get('/plain', (_request, response) => response.end('done'));
    router.get('/awaits/:levels', async (_request, response, { params }) => {
      await deeper(Number(params.levels));
      response.end('done');
    });
  },
};
