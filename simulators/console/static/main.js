// Puts the page together: one state from the server, drawn by desk, phone, books and control.

import { get } from "./api.js";
import { Books } from "./books.js";
import { Control } from "./control.js";
import { Desk } from "./desk.js";
import { $, secondsText, toast } from "./dom.js";
import { Guide } from "./guide.js";
import { Phone } from "./phone.js";

const BUSY_MILLISECONDS = 900;
const CALM_MILLISECONDS = 3000;
const BUSY_FOR_MILLISECONDS = 40000;

const world = JSON.parse($("world").textContent);
let busyUntil = performance.now() + BUSY_FOR_MILLISECONDS;
let offset = 0; // the shared clock's distance from this computer's
let failures = 0;
let timer;

const guide = new Guide();
const phone = new Phone(world, {
  messageArrived: (message) => guide.messageArrived(message),
  bound: (isBound) => guide.bound(isBound, phone.person),
  opened: (billId) => guide.opened(billId),
  paying: () => guide.paying(),
  changed: () => refreshSoon(),
});
const books = new Books();
const control = new Control(refreshSoon);
const desk = new Desk({
  issued: (bill) => {
    guide.issued(bill);
    refreshSoon();
  },
  changed: () => {
    phone.mini.refreshIfShown();
    refreshSoon();
  },
  person: (key) => usePerson(key),
});

function now() {
  return new Date(Date.now() + offset);
}

function refreshSoon() {
  busyUntil = performance.now() + BUSY_FOR_MILLISECONDS;
  clearTimeout(timer);
  timer = setTimeout(refresh, 150);
}

async function refresh() {
  clearTimeout(timer);
  const { person } = phone;
  try {
    const state = await get("state", { person: person.key });
    if (failures) toast("演示台回来了");
    failures = 0;
    offset = new Date(state.now).getTime() - Date.now();
    tick();
    if (person === phone.person) {
      phone.receive(state.messages);
      desk.show(state.bills, person);
    }
    books.show(state);
    control.show(state);
    guide.books(state.rows);
  } catch {
    failures += 1;
    if (failures === 2) toast("演示台没有回应：它还在运行吗？");
  }
  const pause = performance.now() < busyUntil ? BUSY_MILLISECONDS : CALM_MILLISECONDS;
  if (!document.hidden) timer = setTimeout(refresh, failures ? CALM_MILLISECONDS : pause);
}

function usePerson(key) {
  const person = world.people.find((each) => each.key === key);
  guide.start(person);
  const ready = phone.use(person);
  refreshSoon();
  return ready;
}

function tick() {
  const moment = now();
  $("top-clock").textContent = secondsText(moment);
  phone.tick(moment);
  control.tick(moment);
  books.now = moment;
  desk.now = moment;
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) refreshSoon();
});

setInterval(tick, 1000);
tick();
usePerson($("person").value);
