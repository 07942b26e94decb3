// Makes the component: `src/worker.js` together with a JavaScript engine that is started once, here, and whose memory becomes the component's.

import { mkdir, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { componentize } from '@bytecodealliance/componentize-js';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

const { component } = await componentize({
  sourcePath: here('src/worker.js'),
  witPath: here('wit'),
  worldName: 'worker',
});
await mkdir(here('dist'), { recursive: true });
await writeFile(here('dist/worker.wasm'), component);
console.log(`dist/worker.wasm: ${(component.length / 2 ** 20).toFixed(1)} MiB`);
