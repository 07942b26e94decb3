// Asks the worker, which is on the same origin under /api.

const form = document.querySelector('form');
const output = document.querySelector('output');

form.addEventListener('submit', async (event) => {
  event.preventDefault();
  const response = await fetch(`/api/hello?${new URLSearchParams(new FormData(form))}`);
  output.textContent = response.ok ? (await response.json()).message : `The worker answered ${response.status}.`;
});
