// Leads through a story: one line says what comes next, and what to press is marked.

import { post } from "./api.js";
import { $, h, replace, toast, whenChanged, yuan } from "./dom.js";
import { STORIES } from "./story_list.js";

const MARK_MILLISECONDS = 300;
const LONG_MILLISECONDS = 12000;
const ONE_PANEL_BELOW = 860; // pixels, as in console.css
const PANELS = { desk: "去开单", phone1: "看手机1", phone2: "看手机2", books: "看三本账", control: "去拨时钟" };

export class Stories {
  constructor({ phones, panels, world, hand, prescribeFor, changed }) {
    Object.assign(this, { phones, panels, world, hand, prescribeFor, changed });
    this.log = [];
    this.bills = new Set();
    this.told = new Map();
    panels.changed = () => this.#way();
    $("guide-go").addEventListener("click", () => panels.show($("guide-go").dataset.panel));
    this.drawTotals = whenChanged((totals, verdict) => this.#totals(totals, verdict));
    setInterval(() => this.#mark(), MARK_MILLISECONDS);
  }

  // When the page opens: the first story, with the second phone in somebody else's hand.
  async begin() {
    const [elder] = this.world.people;
    const other = this.world.people.find((each) => each.name === "李大山") ?? elder;
    this.hand(this.phones[1], other.key);
    await this.tell(STORIES[0], { fresh: false });
  }

  // Begins the story anew. What an earlier telling has left unpaid is cancelled, and no fault is on.
  async tell(story, { fresh = true } = {}) {
    this.story = story;
    this.step = 0;
    this.log = [];
    this.bills = new Set();
    this.row = null;
    this.clockAt = this.clock;
    this.over = false;
    const told = this.told.get(story) ?? 0;
    this.told.set(story, told + 1);
    const person = this.#named(story.people[told % story.people.length]);
    this.person = person;
    this.#pills();
    this.#say();
    try {
      if (fresh) await post("desk/clear", { person: person.key });
      const ready = this.hand(this.phones[story.phone - 1], person.key);
      await this.prescribeFor(person.key);
      await ready;
    } catch (error) {
      toast(error.message);
    }
    this.panels.show("desk");
    this.changed();
  }

  // ------------------------------------------------------------ what steps ask

  saw(name, which = () => true) {
    return this.log.some((each) => each.name === name && which(each));
  }

  count(name) {
    return this.log.filter((each) => each.name === name).length;
  }

  get #phone() {
    return this.phones.find((each) => each.person?.phone_key === this.person.phone_key);
  }

  // The number of the phone that this story's person holds.
  get at() {
    return this.#phone?.number ?? this.story.phone;
  }

  // Whether this person's WeChat has been opened, bound or not.
  get opened() {
    return this.#phone?.mini?.started ?? false;
  }

  get bound() {
    return this.#phone?.mini?.isBound ?? false;
  }

  // ------------------------------------------------------------ what happens

  happened(name, phone, values = {}) {
    if (!this.story) return;
    if (name === "issued") {
      this.bills.add(values.bill_id);
      clearTimeout(this.timer);
      this.waitedLong = false;
      this.timer = setTimeout(() => {
        this.waitedLong = true;
        this.#say();
      }, LONG_MILLISECONDS);
    }
    // A message that came before the bill belongs to an earlier one.
    if (name === "message" && !this.bills.size) return;
    if (name === "bill" && values.bill_id) this.bills.add(values.bill_id);
    this.log.push({ name, phone: phone?.number ?? 0, values });
    this.#forward();
  }

  books(state) {
    const { rows, totals } = state;
    this.clock = state.offset_seconds;
    this.clockAt ??= this.clock;
    const row = rows.find((each) => each.bill_ids.some((id) => this.bills.has(id)) && each.verdict !== "nothing");
    this.row = row ?? null;
    const verdict = rows.some((each) => each.verdict === "differ")
      ? "differ"
      : rows.some((each) => each.verdict === "moving")
        ? "moving"
        : "agree";
    this.drawTotals(totals, verdict);
    this.#forward();
  }

  // The person at the desk has chosen somebody else: the story goes on with them.
  chose(person) {
    this.person = person;
    this.#say();
  }

  #forward() {
    let moved = false;
    while (!this.over && this.story.steps[this.step].done(this)) {
      const done = this.story.steps[this.step];
      if (done.fault) post("faults", { name: done.fault, mode: "once" }).catch((error) => toast(error.message));
      if (this.step === this.story.steps.length - 1) this.over = true;
      else this.step += 1;
      moved = true;
    }
    if (moved) {
      this.#pills();
      this.show = true;
    }
    this.#say();
  }

  #named(name) {
    return this.world.people.find((each) => each.name === name) ?? this.world.people[0];
  }

  // ------------------------------------------------------------ what is shown

  #pills() {
    replace(
      $("stories"),
      STORIES.map((story) =>
        h(
          "button",
          {
            type: "button",
            class: "story",
            "data-story": story.key,
            "data-key": `story-${story.key}`,
            "aria-pressed": String(story === this.story),
            on: { click: () => this.tell(story) },
          },
          story.title,
          story === this.story ? h("small", {}, this.over ? "完成 ↺" : `${this.step + 1}/${story.steps.length}`) : null,
        ),
      ),
    );
  }

  #say() {
    const step = this.story.steps[this.step];
    const text = this.over ? step.said : step.say(this);
    if ($("guide-text").textContent !== text) $("guide-text").textContent = text;
    this.#way();
  }

  // On a small screen: the way to where the next step is done.
  #way() {
    if (!this.story) return;
    const { panel: place } = this.story.steps[this.step];
    const panel = place === "phone" ? `phone${this.at}` : place;
    const button = $("guide-go");
    button.textContent = `${PANELS[panel]} ›`;
    button.dataset.panel = panel;
    button.hidden = this.panels.shown === panel;
  }

  #mark() {
    if (!this.story) return;
    const target = this.over ? null : this.story.steps[this.step].target(this);
    for (const marked of document.querySelectorAll(".next-action")) if (marked !== target) marked.classList.remove("next-action");
    target?.classList.add("next-action");
    // What comes next may lie outside a screen that shows everything at once.
    if (target && this.show && window.innerWidth >= ONE_PANEL_BELOW) {
      this.show = false;
      target.scrollIntoView({ block: "nearest" });
    }
    if (this.step === 0 && !this.over) this.#say();
  }

  #totals(totals, verdict) {
    const words = { agree: "三本账一致", moving: "三本账对账中", differ: "三本账不一致" };
    const chip = $("guide-totals");
    chip.className = `guide-totals ${verdict}`;
    replace(chip, words[verdict], h("b", {}, `¥${yuan(totals.ours_fen)}`));
  }
}
