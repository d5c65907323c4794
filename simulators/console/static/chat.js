// The official account's chat: bubbles, cards, tappable links, the published menu, and a line to write in.

import { post } from "./api.js";
import { h, replace, toast, whenText } from "./dom.js";
import { back, card } from "./phone.js";

const QUIET_MILLISECONDS = 5 * 60 * 1000; // after so long a time stands between two entries
const ANCHOR = /<a\s+([^>]*)>([\s\S]*?)<\/a>/g;
const ATTRIBUTE = /([a-zA-Z-]+)\s*=\s*(?:"([^"]*)"|'([^']*)')/g;

export class Chat {
  constructor(phone) {
    this.phone = phone;
    this.writing = false; // the line to write in stands in place of the menu
  }

  draw(again) {
    const { phone } = this;
    if (!again || !phone.screen.contains(this.list)) this.#frame();
    const { entries, typing, follows, menu } = phone.state;
    let before = 0;
    replace(
      this.list,
      entries.length ? null : h("p", { class: "empty" }, "还没有消息"),
      entries.map((entry) => {
        const at = new Date(entry.at).getTime();
        const time = at - before > QUIET_MILLISECONDS ? h("p", { class: "thread-time" }, whenText(entry.at, phone.now())) : null;
        before = at;
        return [time, this.#entry(entry)];
      }),
    );
    this.title.textContent = typing ? "对方正在输入…" : phone.world.institution_name;
    const foot = JSON.stringify([follows, menu, this.writing, this.phone.seen === null]);
    if (foot !== this.footDrawn) {
      this.footDrawn = foot;
      this.#foot();
    }
    this.list.scrollTop = this.list.scrollHeight;
  }

  #frame() {
    const { phone } = this;
    this.footDrawn = "";
    this.list = h("div", { class: "thread chat", "data-chat": true });
    this.title = h("h3", {});
    this.foot = h("footer", { class: "chat-foot" });
    replace(
      phone.screen,
      h(
        "header",
        { class: "bar" },
        back(() => phone.open("home")),
        this.title,
        h("button", { type: "button", class: "bar-right", "data-key": "account", on: { click: () => this.#account() } }, "•••"),
      ),
      this.list,
      this.foot,
    );
  }

  // ------------------------------------------------------------ entries

  #entry(entry) {
    if (entry.author === "system") return h("p", { class: "chat-event" }, entry.text);
    if (entry.via === "event") return h("p", { class: "chat-event" }, eventText(entry));
    if (entry.via === "template" || entry.via === "subscribe") return this.#template(entry);
    const mine = entry.author === "person";
    return h(
      "div",
      { class: `bubble-row ${mine ? "mine" : "theirs"}`, "data-entry": entry.number, "data-via": entry.via },
      h("span", { class: `avatar tiny ${mine ? "me" : "chat"}`, "aria-hidden": "true" }, mine ? this.phone.person.phone_owner[0] : "院"),
      this.#bubble(entry),
    );
  }

  #bubble(entry) {
    const { phone } = this;
    if (entry.kind === "voice") {
      return h("div", { class: "bubble voice" }, `语音：${entry.text}`);
    }
    if (entry.kind === "image") return h("div", { class: "bubble photo" }, "处方照片");
    if (entry.kind === "news") {
      return entry.items.map((item) =>
        h(
          "button",
          { type: "button", class: "bubble news", on: { click: () => phone.openTarget({ url: item.url }) } },
          h("b", {}, item.title),
          h("span", {}, item.text),
        ),
      );
    }
    if (entry.kind === "miniprogrampage") {
      return h(
        "button",
        { type: "button", class: "bubble news", on: { click: () => phone.openTarget(entry.opens) } },
        h("b", {}, entry.text),
        h("span", {}, "小程序"),
      );
    }
    return h(
      "div",
      { class: "bubble" },
      h("p", {}, this.#linked(entry.text)),
      entry.kind === "msgmenu"
        ? entry.items.map((item) =>
            h("button", { type: "button", class: "bubble-link", on: { click: () => this.#say(item.text, item.id) } }, item.text),
          )
        : null,
    );
  }

  // "title\nlabel：value\n…" as the platform keeps it.
  #template(entry) {
    const [title, ...lines] = entry.text.split("\n");
    const opens = entry.opens.pagepath || entry.opens.url;
    return card({
      title,
      lines: lines.map((line) => {
        const at = line.indexOf("：");
        return [line.slice(0, at), line.slice(at + 1)];
      }),
      key: `message-${entry.number}`,
      open: opens ? () => this.phone.openTarget(entry.opens) : null,
    });
  }

  // Text with its links; whatever else looks like markup is text.
  #linked(text) {
    const parts = [];
    let at = 0;
    for (const found of text.matchAll(ANCHOR)) {
      parts.push(text.slice(at, found.index));
      at = found.index + found[0].length;
      const values = Object.fromEntries([...found[1].matchAll(ATTRIBUTE)].map(([, name, one, other]) => [name.toLowerCase(), unescaped(one ?? other)]));
      parts.push(this.#link(values, found[2]));
    }
    parts.push(text.slice(at));
    return parts;
  }

  #link(values, label) {
    const tap = () => {
      if (values["data-miniprogram-path"]) return this.phone.openTarget({ pagepath: values["data-miniprogram-path"] });
      const href = values.href ?? "";
      if (href.startsWith("weixin://bizmsgmenu")) {
        const query = new URLSearchParams(href.split("?")[1]);
        return this.#say(query.get("msgmenucontent") ?? label, query.get("msgmenuid") ?? "");
      }
      return this.phone.openTarget({ url: href });
    };
    return h("button", { type: "button", class: "bubble-link", "data-href": values.href ?? "", on: { click: tap } }, label);
  }

  // ------------------------------------------------------------ the foot: menu, or a line to write in

  #foot() {
    const { follows, menu } = this.phone.state;
    if (this.phone.seen === null) {
      replace(this.foot); // what the account offers is not known yet: nothing that would be taken away again
      return;
    }
    if (!follows) {
      replace(
        this.foot,
        h("button", { type: "button", class: "chat-follow", on: { click: () => this.#do("chat/follow") } }, "关注公众号"),
      );
      return;
    }
    if (menu.length && !this.writing) {
      replace(this.foot, this.#toggle("写", "打字"), menu.map((button) => this.#menuButton(button)));
      return;
    }
    const input = h("input", { "aria-label": "写消息", placeholder: "例如：缴费", "data-key": "chat-input", maxlength: 600, enterkeyhint: "send" });
    const send = (path) => {
      const text = input.value.trim();
      if (!text) return input.focus();
      input.value = "";
      return this.#do(path, { text });
    };
    replace(
      this.foot,
      menu.length ? this.#toggle("☰", "菜单") : null,
      h(
        "form",
        {
          class: "chat-form",
          on: {
            submit: (event) => {
              event.preventDefault();
              send("chat/say");
            },
          },
        },
        input,
        h("button", { type: "submit", class: "chat-send" }, "发送"),
        h("button", { type: "button", class: "chat-extra", "aria-label": "把这句话当语音说", on: { click: () => send("chat/speak") } }, "语音"),
        h("button", { type: "button", class: "chat-extra", "aria-label": "发处方照片", on: { click: () => this.#do("chat/photo") } }, "照片"),
      ),
    );
  }

  #toggle(mark, label) {
    return h(
      "button",
      {
        type: "button",
        class: "chat-toggle",
        "aria-label": label,
        "data-key": "chat-toggle",
        on: {
          click: () => {
            this.writing = !this.writing;
            this.phone.drawn = "";
            this.draw(true);
            this.foot.querySelector("input")?.focus();
          },
        },
      },
      mark,
    );
  }

  #menuButton(button) {
    const press = (each) => async () => {
      const scans = String(each.type).startsWith("scancode_");
      const scanned = scans ? await this.phone.scan() : "";
      if (scanned === null) return;
      const answer = await this.#do("chat/click", { key: each.key ?? each.url ?? each.name, scanned });
      if (answer) this.phone.openTarget(answer.opens);
    };
    const below = button.sub_button ?? [];
    if (!below.length) return h("button", { type: "button", class: "menu-button", on: { click: press(button) } }, button.name);
    return h(
      "details",
      { class: "menu-button" },
      h("summary", {}, button.name),
      h(
        "span",
        { class: "menu-below" },
        below.map((each) => h("button", { type: "button", on: { click: press(each) } }, each.name)),
      ),
    );
  }

  #account() {
    const { phone } = this;
    phone.dialog(phone.world.institution_name, "公众号 · 服务号", [
      ["返回", null],
      phone.state.follows ? ["不再关注", () => this.#do("chat/unfollow")] : ["关注公众号", () => this.#do("chat/follow")],
    ]);
  }

  #say(text, item = "") {
    return this.#do("chat/say", { text, item });
  }

  async #do(path, values = {}) {
    try {
      const answer = await post(path, { person: this.phone.person.key, ...values });
      this.phone.happened("chat", { path, ...values });
      this.phone.listeners.changed();
      return answer;
    } catch (error) {
      toast(error.message);
      return null;
    }
  }
}

const EVENTS = { CLICK: "点了菜单", VIEW: "点了菜单", view_miniprogram: "点了菜单" };

const eventText = (entry) => (EVENTS[entry.kind] ? `${EVENTS[entry.kind]}「${entry.text}」` : entry.text);

const unescaped = (text) =>
  text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&quot;", '"').replaceAll("&#39;", "'").replaceAll("&amp;", "&");
