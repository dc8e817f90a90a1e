/** The conformance suite asks for paths of its own; Next.js serves functions under /api. */
export default {
  async rewrites() {
    return { beforeFiles: [{ source: '/:path*', destination: '/api/:path*' }] };
  },
};
