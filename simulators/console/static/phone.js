// One phone: WeChat's list of chats, the account's chat, service notices, text messages, pages and the mini program.

import { get, post } from "./api.js";
import { Browser } from "./browser.js";
import { Chat } from "./chat.js";
import { clockText, h, replace, toast, whenText } from "./dom.js";
import { IDENTIFIERS, MiniProgram } from "./mini.js";
import { PaySheet } from "./paysheet.js";

const BANNER_MILLISECONDS = 6000;
const ICONS = { chat: "院", notices: "信", texts: "短", mini: "¥" };
const BILLS_PAGE = "pages/bills/index";

export class Phone {
  constructor(number, world, listeners) {
    this.number = number;
    this.world = world;
    this.listeners = listeners; // happened(name, phone, values), changed()
    this.root = document.querySelector(`[data-phone="${number}"]`);
    const part = (name) => this.root.querySelector(`[data-${name}]`);
    this.screen = part("screen");
    this.web = part("web");
    this.banner = part("banner");
    this.sheet = part("sheet");
    this.holder = part("holder");
    this.note = part("holder-note");
    this.clock = part("phone-clock");
    this.owner = part("phone-owner");
    this.who = part("who");
    this.now = () => new Date();
    this.browser = new Browser(this);
    this.paySheet = new PaySheet(this);
    this.chat = new Chat(this);
    this.screen.addEventListener("click", () => this.closeBanner());
  }

  // Another person picks up their own phone; resolves when their WeChat is open.
  async use(person) {
    this.person = person;
    this.state = { follows: true, menu: [], typing: false, entries: [], notices: [], texts: [] };
    this.seen = null; // what was there when the phone was picked up, then all that has been read
    this.announced = new Set();
    this.view = "home";
    this.drawn = "";
    this.closeBanner();
    this.closeOverlay();
    this.browser.close();
    this.mini?.close();
    this.holder.value = person.key;
    this.note.textContent = person.note;
    this.owner.textContent = `${person.phone_owner}的手机`;
    this.#identity();
    const mini = new MiniProgram(this.world, person, this);
    this.mini = mini;
    this.draw();
    await this.#hand(person);
    await mini.start();
  }

  // Tell the console who holds this phone, one after the other: only the last word counts, and until it is taken no
  // state that says otherwise is believed.
  async #hand(person) {
    this.handedAt = Infinity;
    this.handing = (this.handing ?? Promise.resolve()).then(async () => {
      if (this.person !== person) return;
      await post("phone/hand", { number: this.number, person: person.key });
      if (this.person === person) this.handedAt = performance.now();
    });
    await this.handing;
  }

  // What this person would fill in where a page asks; a tap copies it.
  #identity() {
    const { person } = this;
    const row = (term, value) => [
      h("dt", {}, term),
      h(
        "dd",
        {},
        h(
          "button",
          {
            type: "button",
            class: "link",
            title: "复制",
            on: {
              click: () => {
                navigator.clipboard?.writeText(value).then(() => toast(`已复制：${term}`), () => {});
              },
            },
          },
          value,
        ),
      ),
    ];
    replace(
      this.who,
      h("p", {}, "演示用的资料，全是编的："),
      h("dl", {}, row("就诊人", person.patient_name), row(IDENTIFIERS[person.identifier_type], person.identifier), row("手机号", person.phone)),
    );
  }

  // Whether somebody else was given this phone in another window, by the state that was asked for at `asked`.
  isOthers(state, asked) {
    return state.person !== this.person?.key && (this.person === undefined || asked > this.handedAt);
  }

  receive(state) {
    if (state.person !== this.person?.key) return;
    this.state = state;
    const arrivals = this.#arrivals();
    if (this.seen === null) this.seen = new Set(arrivals.map((each) => each.id));
    const fresh = arrivals.filter((each) => !this.seen.has(each.id) && !this.announced.has(each.id));
    for (const arrival of fresh) {
      this.announced.add(arrival.id);
      this.happened("message", arrival);
    }
    const last = fresh.at(-1);
    if (last && this.view !== last.view) this.#showBanner(last);
    this.draw();
  }

  happened(name, values = {}) {
    this.listeners.happened?.(name, this, values);
  }

  // Everything that others have sent to this phone, oldest first.
  #arrivals() {
    const { entries, notices, texts } = this.state;
    return [
      ...entries
        .filter((entry) => entry.author !== "person")
        .map((entry) => ({ id: `e${entry.number}`, view: "chat", at: entry.at, from: this.world.institution_name, text: plain(entry.text) })),
      ...notices.map((notice) => ({ id: `n${notice.msgid}`, view: "notices", at: notice.at, from: notice.from, text: firstLine(notice) })),
      ...texts.map((text) => ({ id: `t${text.id}`, view: "texts", at: text.at, from: "短信", text: text.text })),
    ].sort((one, other) => one.at.localeCompare(other.at));
  }

  // ------------------------------------------------------------ where the phone is

  open(view) {
    this.view = view;
    this.drawn = "";
    this.closeBanner();
    if (view !== "mini") this.mini.hide();
    this.web.hidden = view !== "web";
    this.screen.hidden = view === "web";
    if (view === "home") this.screen.scrollTop = 0;
    this.draw();
  }

  openMini(page = BILLS_PAGE) {
    this.open("mini");
    this.mini.open(page);
  }

  openWeb(url) {
    this.open("web");
    this.browser.open(url);
  }

  // What a tap on a message, a menu button or a link opens.
  openTarget(opens) {
    if (opens.pagepath) this.openMini(opens.pagepath);
    else if (opens.url) this.openWeb(opens.url);
  }

  draw() {
    if (this.view === "chat" || this.view === "notices" || this.view === "texts") {
      for (const each of this.#arrivals()) if (each.view === this.view) this.seen?.add(each.id);
    }
    const dot = document.querySelector(`[data-dot="${this.number}"]`);
    if (dot) dot.hidden = !this.#arrivals().some((each) => this.seen && !this.seen.has(each.id));
    if (this.view === "mini" || this.view === "web") return;
    const now = JSON.stringify([this.view, this.state, this.#unread("chat"), this.#unread("notices"), this.#unread("texts")]);
    if (now === this.drawn) return;
    const again = this.drawn.startsWith(JSON.stringify([this.view]).slice(0, -1));
    this.drawn = now;
    if (this.view === "home") this.#home();
    if (this.view === "chat") this.chat.draw(again);
    if (this.view === "notices") this.#notices();
    if (this.view === "texts") this.#texts();
  }

  #unread(view) {
    if (!this.seen) return 0;
    return this.#arrivals().filter((each) => each.view === view && !this.seen.has(each.id)).length;
  }

  // ------------------------------------------------------------ WeChat's first screen

  #home() {
    const row = (key, name, says, open) => {
      const last = this.#arrivals().filter((each) => each.view === key).at(-1);
      const unread = this.#unread(key);
      return h(
        "button",
        { type: "button", class: "chat-row", "data-key": `row-${key}`, "data-row": key, on: { click: open } },
        h("span", { class: `avatar ${key}`, "aria-hidden": "true" }, ICONS[key]),
        h(
          "span",
          { class: "chat-text" },
          h("span", { class: "chat-name" }, name),
          h("span", { class: "chat-last" }, last ? last.text : says),
        ),
        h(
          "span",
          { class: "chat-side" },
          last ? whenText(last.at, this.now()) : "",
          unread ? h("b", { class: "badge", "aria-label": `${unread}条未读` }, unread) : null,
        ),
      );
    };
    const { institution_name: name } = this.world;
    replace(
      this.screen,
      h(
        "header",
        { class: "bar" },
        h("h3", {}, "微信"),
        h("button", { type: "button", class: "bar-right", "data-key": "scan", on: { click: () => this.scanInWechat() } }, "扫一扫"),
      ),
      h(
        "div",
        { class: "chat-list" },
        row("chat", name, this.state.follows ? "公众号 · 已关注" : "公众号 · 没有关注", () => this.open("chat")),
        row("mini", `${name}缴费`, "小程序 · 绑定就诊人、查账单、缴费", () => this.openMini()),
        row("notices", "服务通知", "小程序发来的通知", () => this.open("notices")),
        row("texts", "短信", "手机自带，不在微信里", () => this.open("texts")),
      ),
    );
  }

  #notices() {
    const { notices } = this.state;
    replace(
      this.screen,
      this.#bar("服务通知"),
      h(
        "div",
        { class: "thread" },
        notices.length ? null : h("p", { class: "empty" }, "还没有消息"),
        notices.map((notice) => [
          h("p", { class: "thread-time" }, whenText(notice.at, this.now())),
          card({
            title: notice.title,
            from: notice.from,
            lines: notice.lines,
            key: `notice-${notice.msgid}`,
            open: notice.opens.pagepath || notice.opens.url ? () => this.openTarget(notice.opens) : null,
          }),
        ]),
      ),
    );
    this.screen.scrollTop = this.screen.scrollHeight;
  }

  #texts() {
    const { texts } = this.state;
    replace(
      this.screen,
      this.#bar("短信"),
      h(
        "div",
        { class: "thread" },
        texts.length ? null : h("p", { class: "empty" }, "还没有短信"),
        texts.map((text) => [
          h("p", { class: "thread-time" }, whenText(text.at, this.now())),
          h("p", { class: "sms", "data-sms": true }, text.text),
        ]),
      ),
    );
    this.screen.scrollTop = this.screen.scrollHeight;
  }

  #bar(title) {
    return h("header", { class: "bar" }, back(() => this.open("home")), h("h3", {}, title));
  }

  // ------------------------------------------------------------ scanning

  // WeChat's own scanner: an address opens, anything else is only shown.
  async scanInWechat() {
    const content = await this.scan();
    if (content !== null) this.openScanned(content);
  }

  openScanned(content) {
    if (/^https?:/.test(content)) this.openWeb(content);
    else this.dialog("扫到的内容", content, [["知道了", null]]);
  }

  // The camera held over one of the papers on the desk; resolves with what is on it, or null.
  async scan() {
    let papers;
    try {
      ({ papers } = await get("papers"));
    } catch (error) {
      toast(error.message);
      return null;
    }
    return new Promise((resolve) => {
      const choose = (content) => {
        this.closeOverlay();
        resolve(content);
      };
      this.overlay(
        h(
          "div",
          { class: "scan-sheet", role: "dialog", "aria-modal": "true", "aria-label": "扫一扫" },
          h("h4", {}, "对准桌上的哪张处方？"),
          papers.length ? null : h("p", { class: "empty" }, "桌上还没有处方，请医生先开单"),
          h(
            "ul",
            {},
            papers.map((paper) =>
              h(
                "li",
                {},
                h(
                  "button",
                  { type: "button", disabled: !paper.content, "data-scan": paper.bill_id, on: { click: () => choose(paper.content) } },
                  paper.content.startsWith("http") ? h("img", { src: `/paper/${paper.bill_id}/code.svg`, alt: "", width: 52, height: 52 }) : null,
                  h("span", {}, h("b", {}, `${paper.patient_name} · ${paper.title}`), h("small", {}, paper.content ? paper.bill_id : "这张纸上没有码")),
                ),
              ),
            ),
          ),
          h("button", { type: "button", class: "mini-plain", "data-first": true, on: { click: () => choose(null) } }, "取消"),
        ),
        () => choose(null),
      );
    });
  }

  // ------------------------------------------------------------ over the screen

  #showBanner(arrival) {
    clearTimeout(this.bannerTimer);
    replace(
      this.banner,
      h(
        "button",
        { type: "button", class: "banner", on: { click: () => this.open(arrival.view) } },
        h("span", { class: `avatar small ${arrival.view}`, "aria-hidden": "true" }, ICONS[arrival.view]),
        h(
          "span",
          { class: "chat-text" },
          h("span", { class: "chat-name" }, arrival.view === "texts" ? "短信" : `微信 · ${arrival.from}`),
          h("span", { class: "chat-last" }, arrival.text),
        ),
        h("span", { class: "chat-side" }, "现在"),
      ),
    );
    this.bannerTimer = setTimeout(() => this.closeBanner(), BANNER_MILLISECONDS);
  }

  closeBanner() {
    clearTimeout(this.bannerTimer);
    replace(this.banner);
  }

  overlay(content, onEscape) {
    const overlay = h("div", { class: "overlay" }, content);
    overlay.addEventListener("keydown", (event) => {
      if (event.key === "Escape") onEscape();
    });
    replace(this.sheet, overlay);
    this.screen.inert = true;
    this.web.inert = true;
    overlay.querySelector("[data-first]")?.focus({ preventScroll: true });
  }

  closeOverlay() {
    replace(this.sheet);
    this.screen.inert = false;
    this.web.inert = false;
  }

  dialog(title, text, choices) {
    const close = (then) => {
      this.closeOverlay();
      then?.();
    };
    this.overlay(
      h(
        "div",
        { class: "mini-dialog", role: "alertdialog", "aria-modal": "true", "aria-label": title },
        h("h4", {}, title),
        h("p", {}, text),
        h(
          "div",
          { class: "dialog-buttons" },
          choices.map(([label, then], place) =>
            h("button", { type: "button", "data-first": place === choices.length - 1, on: { click: () => close(then) } }, label),
          ),
        ),
      ),
      () => close(null),
    );
  }

  tick(now) {
    this.now = () => now;
    this.clock.textContent = clockText(now);
  }
}

export function back(listener, label = "返回") {
  return h("button", { type: "button", class: "back", "aria-label": label, "data-key": "back", on: { click: listener } }, "‹");
}

// A template message: a title, lines of label and value, and where a tap leads.
export function card({ title, from = "", lines, key, open }) {
  const content = [
    h("span", { class: "card-title" }, title),
    from ? h("span", { class: "card-from" }, from) : null,
    h(
      "span",
      { class: "card-lines" },
      lines.map(([label, value]) =>
        h("span", { class: "card-line" }, h("span", { class: "label" }, label), h("span", { class: "value" }, value)),
      ),
    ),
  ];
  if (!open) return h("div", { class: "message-card" }, content);
  return h(
    "button",
    { type: "button", class: "message-card", "data-key": key, on: { click: open } },
    content,
    h("span", { class: "card-more" }, "查看详情", h("span", { "aria-hidden": "true" }, "›")),
  );
}

const plain = (text) => text.replace(/<a\s[^>]*>|<\/a>/g, "").replace(/\s+/g, " ");
const firstLine = (message) => [message.title, ...message.lines.slice(0, 2).map(([, value]) => value)].join(" · ");
