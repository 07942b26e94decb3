// A worker in plain JavaScript: the `fetch` event of the web platform, served over `wasi:http`. It knows nothing of tovuk.

import { getEnvironment } from 'wasi:cli/environment@0.2.10';

addEventListener('fetch', (event) => event.respondWith(handle(event.request)));

async function handle(request) {
  const { pathname } = new URL(request.url);
  if (pathname === '/twice') return twice();
  return Response.json({ hello: 'from JavaScript', method: request.method, path: pathname });
}

// Calls this same service through its binding. The URL is private: it means something to this worker only, and no socket is opened for it.
async function twice() {
  const self = new Map(getEnvironment()).get('SELF_URL');
  if (!self) {
    return Response.json({ error: 'SELF_URL is not set: the binding in tovuk.toml gives it' }, { status: 500 });
  }
  const answer = await fetch(`${self}/called-by-itself`);
  return Response.json({ status: answer.status, answered: await answer.json() });
}
