// The worker: the `fetch` event of the web platform, served over `wasi:http`.

import { getEnvironment } from 'wasi:cli/environment@0.2.10';

addEventListener('fetch', (event) => event.respondWith(handle(event.request)));

async function handle(request) {
  const { pathname, searchParams } = new URL(request.url);
  switch (pathname) {
    case '/':
      return new Response('It works. Try /hello?name=you\n');
    case '/healthz':
      return new Response('ok\n');
    case '/hello':
      return Response.json({ message: `Hello, ${searchParams.get('name') ?? 'world'}!` });
    case '/service':
      // Secrets, ids of resources and URLs of bindings are in the environment.
      return Response.json({ id: new Map(getEnvironment()).get('TOVUK_SERVICE_ID') ?? null });
    default:
      return new Response('not found\n', { status: 404 });
  }
}
