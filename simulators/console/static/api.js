// The console's own endpoints: what this page does to the simulated world.

export class Mistake extends Error {}

async function read(response) {
  const value = await response.json().catch(() => ({}));
  if (!response.ok) throw new Mistake(value.error || `演示台出错（${response.status}）`);
  return value;
}

export async function get(path, query = {}) {
  return read(await fetch(`/api/${path}?${new URLSearchParams(query)}`, { cache: "no-store" }));
}

export async function post(path, value = {}) {
  return read(
    await fetch(`/api/${path}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(value),
    }),
  );
}
