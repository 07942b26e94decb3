export default {
  async fetch(request, env) {
    const left = parseInt(new URL(request.url).pathname.slice(1)) || 0;
    if (left === 0 || !env.NEXT) return new Response("hello");
    const answer = await env.NEXT.fetch("http://next.internal/" + (left - 1));
    return new Response(await answer.text(), { status: answer.status });
  },
};
