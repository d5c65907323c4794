// The patient's phone: WeChat's list of chats, the account's messages, and the mini program over them.

import { $, clockText, h, replace, whenChanged, whenText } from "./dom.js";
import { MiniProgram } from "./mini.js";

const BANNER_MILLISECONDS = 6000;
const ICONS = { service: "院", miniprogram: "信" };

export class Phone {
  constructor(world, listeners) {
    this.world = world;
    this.listeners = listeners; // messageArrived(message), bound(), opened(billId), paying(), changed()
    this.screen = $("phone-screen");
    this.banner = $("phone-banner");
    this.now = () => new Date();
    this.screen.addEventListener("click", () => this.closeBanner());
    this.drawChats = whenChanged(() => this.#chats());
    this.drawThread = whenChanged(() => this.#thread());
  }

  // Another person picks up their own phone.
  use(person) {
    this.person = person;
    this.messages = [];
    this.seen = null; // message ids that were there when the phone was picked up, then all that have been read
    this.view = "chats";
    this.thread = "service";
    this.closeBanner();
    this.mini?.close();
    this.mini = new MiniProgram(this.world, person, this);
    $("phone-owner").textContent = `${person.phone_owner}的手机`;
    this.draw(true);
    return this.mini.start();
  }

  receive(messages) {
    this.messages = messages;
    if (this.seen === null) this.seen = new Set(messages.map((message) => message.msgid));
    this.announced ??= new Set();
    const fresh = messages.filter((message) => !this.seen.has(message.msgid) && !this.announced.has(message.msgid));
    for (const message of fresh) {
      this.announced.add(message.msgid);
      this.listeners.messageArrived(message);
    }
    if (fresh.length && !(this.view === "thread" && this.thread === fresh.at(-1).app_kind)) {
      this.#showBanner(fresh.at(-1));
    }
    this.draw();
  }

  draw(again = false) {
    if (this.view === "chats") this.drawChats(again ? Math.random() : this.messages, [...(this.seen ?? [])].length);
    if (this.view === "thread") this.drawThread(again ? Math.random() : this.messages, this.thread);
    const unread = this.messages.some((message) => this.seen && !this.seen.has(message.msgid));
    $("phone-dot").hidden = !unread;
  }

  open(view, thread) {
    this.view = view;
    this.closeBanner();
    if (thread) this.thread = thread;
    if (view !== "mini") this.mini.hide();
    this.draw(true);
    this.screen.scrollTop = view === "thread" ? this.screen.scrollHeight : 0;
  }

  openMini(page) {
    this.view = "mini";
    this.closeBanner();
    this.mini.open(page);
  }

  // ------------------------------------------------------------ chats

  #of(kind) {
    return this.messages.filter((message) => message.app_kind === kind);
  }

  #unread(kind) {
    return this.#of(kind).filter((message) => this.seen && !this.seen.has(message.msgid)).length;
  }

  #chats() {
    const account = (kind, name, says) => {
      const last = this.#of(kind).at(-1);
      const unread = this.#unread(kind);
      return h(
        "button",
        { type: "button", class: "chat-row", "data-key": `chat-${kind}`, on: { click: () => this.open("thread", kind) } },
        h("span", { class: `avatar ${kind}`, "aria-hidden": "true" }, ICONS[kind]),
        h(
          "span",
          { class: "chat-text" },
          h("span", { class: "chat-name" }, name),
          h("span", { class: "chat-last" }, last ? firstLine(last) : says),
        ),
        h(
          "span",
          { class: "chat-side" },
          last ? whenText(last.at, this.now()) : "",
          unread ? h("b", { class: "badge", "aria-label": `${unread}条未读` }, unread) : null,
        ),
      );
    };
    replace(
      this.screen,
      h("header", { class: "bar" }, h("h3", {}, "微信")),
      h(
        "div",
        { class: "chat-list" },
        h(
          "button",
          { type: "button", class: "chat-row", "data-key": "chat-mini", on: { click: () => this.openMini("pages/bills/index") } },
          h("span", { class: "avatar mini", "aria-hidden": "true" }, "¥"),
          h(
            "span",
            { class: "chat-text" },
            h("span", { class: "chat-name" }, `${this.world.institution_name}缴费`),
            h("span", { class: "chat-last" }, "小程序 · 绑定就诊人、查账单、缴费"),
          ),
        ),
        account("service", this.world.institution_name, "服务号 · 已关注"),
        account("miniprogram", "服务通知", "小程序发来的通知"),
      ),
    );
  }

  #thread() {
    const title = this.thread === "service" ? this.world.institution_name : "服务通知";
    const messages = this.#of(this.thread);
    for (const message of messages) this.seen?.add(message.msgid);
    replace(
      this.screen,
      h("header", { class: "bar" }, back(() => this.open("chats")), h("h3", {}, title)),
      h(
        "div",
        { class: "thread" },
        messages.length ? null : h("p", { class: "empty" }, "还没有消息"),
        messages.map((message) => [
          h("p", { class: "thread-time" }, whenText(message.at, this.now())),
          this.#card(message),
        ]),
      ),
    );
    this.screen.scrollTop = this.screen.scrollHeight;
  }

  #card(message) {
    const opens = message.opens.pagepath ?? message.opens.url ?? "";
    const content = [
      h("span", { class: "card-title" }, message.title),
      message.app_kind === "miniprogram" ? h("span", { class: "card-from" }, message.from) : null,
      h(
        "span",
        { class: "card-lines" },
        message.lines.map(([label, value]) =>
          h("span", { class: "card-line" }, h("span", { class: "label" }, label), h("span", { class: "value" }, value)),
        ),
      ),
    ];
    if (!opens) return h("div", { class: "message-card" }, content);
    return h(
      "button",
      {
        type: "button",
        class: "message-card",
        "data-key": `message-${message.msgid}`,
        "data-opens": opens,
        on: { click: () => this.openMini(opens) },
      },
      content,
      h("span", { class: "card-more" }, "查看详情", h("span", { "aria-hidden": "true" }, "›")),
    );
  }

  #showBanner(message) {
    clearTimeout(this.bannerTimer);
    replace(
      this.banner,
      h(
        "button",
        {
          type: "button",
          class: "banner",
          on: { click: () => this.open("thread", message.app_kind) },
        },
        h("span", { class: `avatar small ${message.app_kind}`, "aria-hidden": "true" }, ICONS[message.app_kind]),
        h(
          "span",
          { class: "chat-text" },
          h("span", { class: "chat-name" }, `微信 · ${message.from}`),
          h("span", { class: "chat-last" }, firstLine(message)),
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

  tick(now) {
    this.now = () => now;
    $("phone-clock").textContent = clockText(now);
  }
}

export function back(listener, label = "返回") {
  return h("button", { type: "button", class: "back", "aria-label": label, "data-key": "back", on: { click: listener } }, "‹");
}

const firstLine = (message) => [message.title, ...message.lines.slice(0, 2).map(([, value]) => value)].join(" · ");
