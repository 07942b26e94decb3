export default {
  async fetch() {
    return new Response("hello", { headers: { "content-type": "text/plain" } });
  },
};
