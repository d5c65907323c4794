// One phone alone on a real phone's screen, or in a window of its own.

import { get } from "./api.js";
import { $, toast } from "./dom.js";
import { Phone } from "./phone.js";

const PAUSE_MILLISECONDS = 1200;

const world = JSON.parse($("world").textContent);
const phone = new Phone(world.alone, world, { changed: () => refresh() });
let offset = 0;
let failures = 0;
let timer;

async function refresh() {
  clearTimeout(timer);
  const asked = performance.now();
  try {
    const state = await get("state", { person: world.people[0].key });
    failures = 0;
    offset = new Date(state.now).getTime() - Date.now();
    const mine = state.phones[world.alone - 1];
    if (phone.isOthers(mine, asked)) use(mine.person);
    phone.receive(mine);
  } catch (error) {
    failures += 1;
    if (failures === 2) toast("演示台没有回应：它还在运行吗？");
    if (!(error instanceof Error)) throw error;
  }
  if (!document.hidden) timer = setTimeout(refresh, PAUSE_MILLISECONDS);
}

function use(key) {
  return phone.use(world.people.find((each) => each.key === key));
}

function tick() {
  phone.tick(new Date(Date.now() + offset));
}

phone.holder.addEventListener("change", async () => {
  await use(phone.holder.value);
  refresh();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) refresh();
});
setInterval(tick, 1000);
tick();
refresh();
