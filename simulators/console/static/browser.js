// WeChat's in-app browser: a frame onto this phone's own proxy, and the app around it.

import { post } from "./api.js";
import { h, replace, toast } from "./dom.js";

const PAID = new Set(["paid", "already_paid"]);

export class Browser {
  constructor(phone) {
    this.phone = phone;
    this.stack = []; // paths, the one that is shown last
    const port = phone.world.browser_ports[phone.number - 1];
    this.origin = `http://${location.hostname.includes(":") ? `[${location.hostname}]` : location.hostname}:${port}`;
    window.addEventListener("message", (event) => this.#heard(event));
  }

  open(url) {
    const { product_url: product } = this.phone.world;
    if (!url.startsWith(`${product}/`) && url !== product) {
      this.phone.open("home");
      this.phone.dialog("演示环境里没有这个网站", new URL(url).hostname, [["知道了", null]]);
      return;
    }
    this.stack = [];
    this.#frame(url.slice(product.length) || "/");
  }

  close() {
    this.frame = null;
    this.stack = [];
    replace(this.phone.web);
    this.phone.web.hidden = true;
    this.phone.screen.hidden = false;
  }

  #frame(path) {
    const { phone } = this;
    this.title = h("h3", {}, "正在打开…");
    this.backButton = h(
      "button",
      { type: "button", class: "back", "aria-label": "上一页", on: { click: () => this.back() } },
      "‹",
    );
    // A new frame for each address: the way back belongs to this phone, not to the whole window.
    this.frame = h("iframe", {
      src: this.origin + path,
      title: `手机${phone.number}上的网页`,
      name: `web-${phone.number}`,
      sandbox: "allow-scripts allow-forms allow-same-origin allow-modals",
    });
    replace(
      phone.web,
      h(
        "header",
        { class: "bar web-bar" },
        this.backButton,
        this.title,
        h(
          "span",
          { class: "capsule" },
          h("button", { type: "button", "aria-label": "刷新网页", on: { click: () => this.#tell({ kind: "reload" }) } }, h("i", { "aria-hidden": "true" }, "⟳")),
          h("button", { type: "button", "aria-label": "关闭网页，回到微信", on: { click: () => this.leave() } }, h("i", { class: "ring" })),
        ),
      ),
      this.frame,
    );
  }

  back() {
    if (this.stack.length < 2) return this.leave();
    this.stack.pop();
    const path = this.stack.pop();
    this.title.textContent = "正在打开…";
    return this.#tell({ kind: "go", path });
  }

  leave() {
    this.close();
    this.phone.open("chat");
  }

  #tell(message) {
    this.frame?.contentWindow.postMessage({ wechat: true, ...message }, this.origin);
  }

  #heard(event) {
    if (!this.frame || event.source !== this.frame.contentWindow || event.origin !== this.origin || !event.data?.wechat) return;
    const message = event.data;
    const answer = (value) => this.#tell({ kind: "answer", id: message.id, value });
    if (message.kind === "page") this.#page(message);
    else if (message.kind === "pay") this.#pay(message.params).then((result) => answer({ result }));
    else if (message.kind === "scan") this.#scan(message.opens).then((result) => answer({ result }));
    else if (message.kind === "config") this.#config(message.config).then((refused) => answer({ refused }));
    else if (message.kind === "close") this.leave();
    else if (message.kind === "call") toast(`拨打 ${message.number}`);
    else if (message.kind === "outside") toast(`演示环境里没有 ${message.host}`);
  }

  #page({ path, title }) {
    if (this.stack.at(-1) !== path) {
      if (this.stack.at(-2) === path) this.stack.pop();
      else this.stack.push(path);
    }
    this.title.textContent = title || "微信";
    this.phone.happened("page", { path, title });
  }

  async #pay(params) {
    this.phone.happened("paying");
    const { result } = await this.phone.paySheet.ask({ app: "service", params });
    if (result === "cancelled") return "cancel";
    return PAID.has(result) ? "ok" : "fail";
  }

  async #scan(opens) {
    const content = await this.phone.scan();
    if (content === null) return null;
    if (opens) this.phone.openScanned(content);
    return /^https?:/.test(content) ? content : `CODE_128,${content}`;
  }

  async #config(config) {
    try {
      return (await post("phone/js-config", { config, path: this.stack.at(-1) ?? "/" })).refused;
    } catch {
      return "system error";
    }
  }
}
