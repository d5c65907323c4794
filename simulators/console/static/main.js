// Puts the page together: one state from the server, drawn by desk, phones, books and control.

import { get } from "./api.js";
import { Books } from "./books.js";
import { Control } from "./control.js";
import { Desk } from "./desk.js";
import { $, secondsText, toast } from "./dom.js";
import { Panels } from "./panels.js";
import { Paper } from "./paper.js";
import { Phone } from "./phone.js";
import { Stories } from "./stories.js";

const BUSY_MILLISECONDS = 900;
const CALM_MILLISECONDS = 3000;
const BUSY_FOR_MILLISECONDS = 40000;

const world = JSON.parse($("world").textContent);
let busyUntil = performance.now() + BUSY_FOR_MILLISECONDS;
let offset = 0; // the shared clock's distance from this computer's
let failures = 0;
let timer;

const panels = new Panels();
const phones = [1, 2].map((number) => new Phone(number, world, { happened, changed: () => refreshSoon() }));
const books = new Books();
const control = new Control(refreshSoon);
const paper = new Paper(world, phones, { changed: () => refreshSoon() });
const desk = new Desk({
  issued: (bill) => {
    paper.print(bill.bill_id);
    happened("issued", null, bill);
    refreshSoon();
  },
  changed: () => {
    for (const phone of phones) phone.mini.refreshIfShown();
    refreshSoon();
  },
  printed: (billId) => paper.print(billId),
  person: (key) => prescribeFor(key),
});
const stories = new Stories({ phones, panels, world, hand, prescribeFor, changed: () => refreshSoon() });

for (const phone of phones) {
  phone.holder.addEventListener("change", () => hand(phone, phone.holder.value));
}

function happened(name, phone, values) {
  stories.happened(name, phone, values);
}

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
  const person = personOf($("person").value);
  const asked = performance.now();
  try {
    const state = await get("state", { person: person.key });
    if (failures) toast("演示台回来了");
    failures = 0;
    offset = new Date(state.now).getTime() - Date.now();
    tick();
    for (const phone of phones) {
      const shown = state.phones[phone.number - 1];
      if (phone.isOthers(shown, asked)) hand(phone, shown.person);
      phone.receive(shown);
    }
    if (person.key === $("person").value) desk.show(state.bills, person);
    books.show(state);
    control.show(state);
    paper.show(state);
    stories.books(state);
  } catch (error) {
    failures += 1;
    if (failures === 2) toast("演示台没有回应：它还在运行吗？");
    if (!(error instanceof Error)) throw error;
  }
  const pause = performance.now() < busyUntil ? BUSY_MILLISECONDS : CALM_MILLISECONDS;
  if (!document.hidden) timer = setTimeout(refresh, failures ? CALM_MILLISECONDS : pause);
}

function personOf(key) {
  return world.people.find((each) => each.key === key);
}

// Another person picks up a phone.
async function hand(phone, key) {
  const ready = phone.use(personOf(key));
  refreshSoon();
  await ready;
}

// The desk writes for this person; whoever is written for holds a phone, unless one of them does already.
async function prescribeFor(key) {
  $("person").value = key;
  const person = personOf(key);
  desk.show([], person);
  stories.chose(person);
  if (!phones.some((phone) => phone.person?.phone_key === person.phone_key)) await hand(phones[0], key);
  else refreshSoon();
}

function tick() {
  const moment = now();
  $("top-clock").textContent = secondsText(moment);
  for (const phone of phones) phone.tick(moment);
  control.tick(moment);
  books.now = moment;
  desk.now = moment;
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) refreshSoon();
});

setInterval(tick, 1000);
tick();
stories.begin();
