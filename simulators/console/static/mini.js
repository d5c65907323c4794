// The hospital's mini program on the phone: bind, see what is owed, pay, see what has been paid.

import { Mistake, post } from "./api.js";
import { h, replace, wait, yuan } from "./dom.js";
import { Product, Refused, newKey } from "./product.js";

export const IDENTIFIERS = {
  id_card: "身份证",
  hospital_card: "就诊卡",
  passport: "护照",
  hk_macau_permit: "港澳居民来往内地通行证",
  taiwan_permit: "台湾居民来往大陆通行证",
  foreign_permanent_resident: "外国人永久居留证",
  birth_certificate: "出生医学证明",
};

const MOVING = new Set(["paying", "confirming", "returning", "part_returning", "checking"]);
const FOLLOW_MILLISECONDS = [600, 600, 800, 1000, 1500, 2000, 3000, 5000];
const FOLLOW_TIMES_MAX = 120;

export class MiniProgram {
  constructor(world, person, phone) {
    this.world = world;
    this.person = person;
    this.phone = phone;
    this.product = new Product(world, person);
    this.product.onAsking = (text) => this.#say(text);
    this.patients = [];
    this.patient = null;
    this.page = "list";
    this.tab = "to_pay";
    this.shown = false;
    this.closed = false;
    this.chosen = new Set();
    this.keys = new Map();
    this.followed = new Set();
  }

  // Signs in before anybody has touched the phone. The very first person is bound at once: a newcomer has a minute.
  async start() {
    try {
      this.patients = await this.product.patients();
      if (this.closed) return;
      this.#choose();
      const isFirst = this.world.people[0].key === this.person.key;
      if (!this.patient && isFirst && !this.unbound) await this.#bind(this.#prefilled());
    } catch (error) {
      this.failure = error;
    }
    if (this.closed) return;
    this.started = true;
    if (this.shown) this.#draw();
    this.phone.happened("bound", { bound: this.isBound });
  }

  get isBound() {
    return this.patient !== null;
  }

  open(path) {
    this.shown = true;
    const [page, query] = path.split("?");
    this.highlighted = new URLSearchParams(query).get("order") ?? "";
    this.page = this.patient ? "list" : "bind";
    this.tab = page.includes("payment") ? "paid" : "to_pay";
    this.#draw();
    if (this.patient) this.refresh();
    else if (this.failure) this.#retryStart();
  }

  hide() {
    this.shown = false;
  }

  close() {
    this.closed = true;
    this.hide();
  }

  refreshIfShown() {
    if (this.shown && this.page === "list" && this.patient) this.refresh();
  }

  async refresh() {
    const { patient } = this;
    this.listError = null;
    this.loading = this.bills === undefined;
    if (this.loading) this.#draw();
    const [bills, paid] = await Promise.allSettled([
      this.product.bills(patient.patient_id),
      this.product.paid(patient.patient_id),
    ]);
    if (this.closed || this.patient !== patient) return;
    this.loading = false;
    if (bills.status === "fulfilled" && bills.value.bills) {
      this.bills = bills.value;
      const payable = new Set(this.bills.bills.filter((bill) => bill.payable).map(keyOf));
      this.chosen = new Set([...this.chosen].filter((key) => payable.has(key)));
    } else {
      this.bills = undefined;
      this.listError = bills.reason?.message ?? "医院系统还没有回应，请稍后刷新。";
    }
    if (paid.status === "fulfilled") this.paid = paid.value;
    this.paidError = paid.status === "fulfilled" ? null : paid.reason.message;
    this.#draw();
    for (const entry of this.paid?.paid ?? []) {
      if (entry.order_no && MOVING.has(entry.status)) this.#follow(entry.order_no);
    }
  }

  async #retryStart() {
    this.failure = null;
    await this.start();
    if (this.shown && this.patient) this.open("pages/bills/index");
  }

  // ------------------------------------------------------------ binding

  #prefilled() {
    const { patient_name: name, identifier_type: type, identifier: value } = this.person;
    return { name, type, value };
  }

  #choose() {
    const mine = this.patients.find((patient) => patient.masked_name === masked(this.person.patient_name));
    this.patient = mine ?? null;
  }

  async #bind(form) {
    await post("phone/allow-messages", { person: this.person.key });
    const bound = await this.product.bind(form);
    this.patients = await this.product.patients();
    this.patient = this.patients.find((patient) => patient.patient_id === bound.patient_id) ?? this.patients.at(-1);
    this.phone.happened("bound", { bound: true });
  }

  #bindPage() {
    const form = this.#prefilled();
    const field = (name, label, value, extra = {}) => [
      h("label", { for: `bind-${name}` }, label),
      h("input", { id: `bind-${name}`, name, value, required: true, autocomplete: "off", "data-key": `bind-${name}`, ...extra }),
    ];
    const submit = async (event) => {
      event.preventDefault();
      const said = new FormData(event.target);
      await this.#busy(async () => {
        await this.#bind({ name: said.get("name"), type: said.get("type"), value: said.get("value") });
        this.open("pages/bills/index");
      });
    };
    return [
      this.#bar("绑定就诊人", this.patients.length > 0 ? () => this.#goList() : null),
      h(
        "form",
        { class: "mini-form", on: { submit } },
        h("p", { class: "mini-lead" }, "绑定以后，医院开了单会发消息给您，直接在手机上缴费。"),
        field("name", "姓名", form.name),
        h("label", { for: "bind-type" }, "证件"),
        h(
          "select",
          { id: "bind-type", name: "type", "data-key": "bind-type" },
          Object.entries(IDENTIFIERS).map(([word, title]) =>
            h("option", { value: word, selected: word === form.type }, title),
          ),
        ),
        field("value", "证件号码", form.value),
        h("p", { class: "mini-note" }, `手机号由微信验证：${this.person.phone || "这部手机没有号码"}`),
        h(
          "label",
          { class: "tick" },
          h("input", { type: "checkbox", required: true, checked: true }),
          "已阅读并同意《隐私说明》，允许发送缴费消息",
        ),
        h("button", { type: "submit", class: "mini-primary", "data-key": "bind" }, "绑定"),
      ),
    ];
  }

  // ------------------------------------------------------------ the lists

  #listPage() {
    const count = this.bills?.count;
    const tab = (word, title) =>
      h(
        "button",
        {
          type: "button",
          role: "tab",
          id: `tab-${word}`,
          "aria-selected": String(this.tab === word),
          "aria-controls": "mini-list",
          "data-key": `tab-${word}`,
          on: {
            click: () => {
              this.tab = word;
              this.#draw();
              this.refresh();
            },
          },
        },
        title,
      );
    return [
      this.#bar("门诊缴费"),
      h(
        "div",
        { class: "mini-who" },
        h("span", {}, "就诊人 ", h("b", {}, this.patient.masked_name)),
        this.patients.length > 1
          ? h(
              "select",
              {
                "aria-label": "换就诊人",
                "data-key": "who",
                on: { change: (event) => this.#usePatient(event.target.value) },
              },
              this.patients.map((patient) =>
                h(
                  "option",
                  { value: patient.patient_id, selected: patient === this.patient },
                  patient.masked_name,
                ),
              ),
            )
          : null,
        h("button", { type: "button", class: "link", "data-key": "refresh", on: { click: () => this.refresh() } }, "刷新"),
        h("button", { type: "button", class: "link", "data-key": "unbind", on: { click: () => this.#unbind() } }, "解绑"),
      ),
      h(
        "div",
        { class: "mini-tabs", role: "tablist" },
        tab("to_pay", count === undefined ? "待缴费" : `待缴费(${count})`),
        tab("paid", "已缴费"),
      ),
      h(
        "div",
        { id: "mini-list", class: "mini-list", role: "tabpanel", "aria-labelledby": `tab-${this.tab}` },
        this.saying ? h("p", { class: "mini-saying", role: "status" }, this.saying) : null,
        this.tab === "to_pay" ? this.#toPay() : this.#paidList(),
      ),
      this.tab === "to_pay" ? this.#mergeBar() : null,
    ];
  }

  #toPay() {
    if (this.loading) return h("p", { class: "empty" }, "正在向医院查询……");
    if (this.listError) return this.#trouble(this.listError);
    const bills = this.bills?.bills ?? [];
    if (!bills.length) return h("p", { class: "empty" }, "没有待缴费的账单");
    return bills.map((bill) => this.#billCard(bill));
  }

  #billCard(bill) {
    const key = keyOf(bill);
    const others = this.bills.bills.filter((other) => other.payable && other.merge_group === bill.merge_group);
    const mergeable = this.bills.merge?.allowed && bill.payable && bill.merge_group && others.length > 1;
    return h(
      "article",
      { class: "bill", "data-bill": bill.bill_id },
      h(
        "header",
        {},
        mergeable
          ? h("input", {
              type: "checkbox",
              "aria-label": `合并支付：${bill.title} ${bill.amount}元`,
              checked: this.chosen.has(key),
              "data-key": `merge-${key}`,
              on: { change: (event) => this.#toggle(bill, event.target.checked) },
            })
          : null,
        h("h4", {}, bill.title),
        bill.status === "to_pay" ? null : h("span", { class: `state ${bill.status}` }, bill.status_text),
      ),
      h("p", { class: "bill-from" }, [bill.department, bill.doctor].filter(Boolean).join(" · ")),
      bill.valid_until_text ? h("p", { class: "bill-from" }, bill.valid_until_text) : null,
      bill.reason_text ? h("p", { class: "bill-reason" }, bill.reason_text) : null,
      h(
        "footer",
        {},
        h("b", { class: "money" }, "¥", bill.amount),
        h(
          "button",
          {
            type: "button",
            class: bill.payable ? "mini-small" : "mini-small plain",
            "data-key": `bill-${key}`,
            "data-open-bill": bill.bill_id,
            on: { click: () => this.#openBill(bill) },
          },
          bill.payable ? "去缴费" : "看明细",
        ),
      ),
    );
  }

  #toggle(bill, on) {
    const group = (key) => this.bills.bills.find((other) => keyOf(other) === key)?.merge_group;
    if (on) {
      this.chosen = new Set([...this.chosen].filter((key) => group(key) === bill.merge_group));
      this.chosen.add(keyOf(bill));
    } else {
      this.chosen.delete(keyOf(bill));
    }
    this.#draw();
  }

  #mergeBar() {
    const bills = (this.bills?.bills ?? []).filter((bill) => this.chosen.has(keyOf(bill)));
    if (!bills.length) return null;
    const total = bills.reduce((sum, bill) => sum + bill.amount_fen, 0);
    return h(
      "div",
      { class: "mini-bottom" },
      h("span", {}, `${bills.length} 张 `, h("b", { class: "money" }, "¥", yuan(total))),
      h(
        "button",
        { type: "button", class: "mini-primary", "data-key": "merge-pay", on: { click: () => this.#pay(bills) } },
        bills.length > 1 ? "合并支付" : "确认支付",
      ),
    );
  }

  #paidList() {
    if (this.paid === undefined) return this.paidError ? this.#trouble(this.paidError) : h("p", { class: "empty" }, "正在加载……");
    const entries = this.paid.paid;
    return [
      this.paid.hospital_part === "unavailable"
        ? h("p", { class: "mini-saying" }, "医院系统暂时没有回应，下面只有手机上的缴费；不影响已付的钱。")
        : null,
      entries.length ? null : h("p", { class: "empty" }, "还没有缴费记录"),
      entries.map((entry) =>
        h(
          "article",
          {
            class: entry.order_no && entry.order_no === this.highlighted ? "bill highlighted" : "bill",
            "data-paid-bill": entry.bill_id,
          },
          h("header", {}, h("h4", {}, entry.title), h("span", { class: `state ${entry.status}` }, entry.status_text)),
          entry.guide_text && entry.status === "paid"
            ? h("p", { class: "guide-box" }, h("b", {}, "下一步"), entry.guide_text)
            : null,
          h(
            "dl",
            {},
            pair("金额", `¥${entry.amount}`),
            pair("时间", entry.paid_at_text),
            entry.receipt_no ? pair("收据号", entry.receipt_no) : null,
            entry.source === "hospital" && entry.paid_by === "window" ? pair("缴费地点", "收费窗口") : null,
            entry.return_reason ? pair("原因", entry.return_reason.text) : null,
            entry.return_reason?.his_text ? pair("医院说明", entry.return_reason.his_text) : null,
          ),
        ),
      ),
    ];
  }

  // ------------------------------------------------------------ one bill

  async #openBill(bill) {
    this.phone.happened("bill", { bill_id: bill.bill_id });
    await this.#busy(async () => {
      this.bill = await this.product.bill(this.patient.patient_id, bill.branch, bill.bill_id);
      this.page = "bill";
      this.#draw();
      this.phone.screen.scrollTop = 0;
    });
  }

  #billPage() {
    const { bill } = this;
    return [
      this.#bar("账单明细", () => this.#goList()),
      h(
        "div",
        { class: "mini-list" },
        this.saying ? h("p", { class: "mini-saying", role: "status" }, this.saying) : null,
        h(
          "article",
          { class: "bill" },
          h("header", {}, h("h4", {}, bill.title), h("span", { class: `state ${bill.status}` }, bill.status_text)),
          h(
            "dl",
            {},
            pair("科室", bill.department),
            pair("医生", bill.doctor),
            pair("就诊号", bill.visit_no),
            bill.valid_until_text ? pair("有效期", bill.valid_until_text) : null,
          ),
          h(
            "ul",
            { class: "items" },
            bill.items.map((item) =>
              h(
                "li",
                {},
                h(
                  "span",
                  {},
                  item.name,
                  h("small", {}, [item.specification, item.unit && `${item.quantity}${item.unit}`].filter(Boolean).join(" · ")),
                ),
                h("b", {}, "¥", item.amount),
              ),
            ),
          ),
          h("p", { class: "bill-total" }, "合计 ", h("b", { class: "money" }, "¥", bill.amount)),
          bill.reason_text ? h("p", { class: "bill-reason" }, bill.reason_text) : null,
          bill.second_tap_text ? h("p", { class: "bill-reason" }, bill.second_tap_text) : null,
        ),
      ),
      bill.payable
        ? h(
            "div",
            { class: "mini-bottom" },
            h("b", { class: "money" }, "¥", bill.amount),
            h(
              "button",
              { type: "button", class: "mini-primary", "data-key": "pay", on: { click: () => this.#pay([bill]) } },
              "确认支付",
            ),
          )
        : null,
    ];
  }

  // ------------------------------------------------------------ paying

  async #pay(bills, more = {}) {
    const insured = bills.some((bill) => bill.needs_second_tap);
    if (insured && !more.accept_self_paid) {
      this.#dialog("按自费支付？", bills.find((bill) => bill.second_tap_text)?.second_tap_text ?? "", [
        ["返回", null],
        ["按自费支付", () => this.#pay(bills, { ...more, accept_self_paid: true })],
      ]);
      return;
    }
    const wish = {
      patient_id: this.patient.patient_id,
      bills: bills.map((bill) => ({ branch: bill.branch, bill_id: bill.bill_id })),
      shown_fen: bills.reduce((sum, bill) => sum + bill.amount_fen, 0),
      method: await this.#method(),
      ...more,
    };
    if (!wish.method) return;
    const name = JSON.stringify(wish);
    if (!this.keys.has(name)) this.keys.set(name, newKey());
    this.phone.happened("paying");
    await this.#busy(
      async () => {
        const started = await this.product.startPayment(wish, this.keys.get(name));
        this.keys.delete(name);
        if (!started.pay) return this.#showPaid(started.order_no);
        this.#sheet(started);
        return null;
      },
      (error) => {
        // Without an answer the same key goes again: the product knows that it is the same wish.
        if (error.status >= 400 && error.status < 500 && error.code !== "still_working") this.keys.delete(name);
        if (error.code === "payment_open_elsewhere") {
          this.#dialog("有一笔支付还没结束", error.message, [
            ["返回", null],
            ["继续支付", () => this.#pay(bills, { ...more, despite_open: true })],
          ]);
          return true;
        }
        if (error.code === "already_paid") {
          this.#dialog("无需再付", error.message, [["看已缴费", () => this.#showPaid(error.values.order_no ?? "")]]);
          return true;
        }
        if (error.code === "amount_changed") {
          this.#dialog("金额有变", error.message, [["看新金额", () => this.#again(bills)]]);
          return true;
        }
        return false;
      },
    );
  }

  async #method() {
    let found = "";
    await this.#busy(async () => {
      const { methods } = await this.product.methods(this.patient.patient_id);
      found = methods[0]?.code ?? "";
      if (!found) this.#dialog("不能支付", "医院还没有开通手机支付，请到收费窗口办理。", [["知道了", null]]);
    });
    return found;
  }

  async #again(bills) {
    this.bills = undefined;
    if (bills.length === 1) {
      await this.#openBill(bills[0]);
    } else {
      this.#goList();
    }
  }

  // What the sheet says is the app's word; the product hears of the money from WeChat Pay.
  async #sheet(started) {
    const { result } = await this.phone.paySheet.ask({ app: "miniprogram", params: started.pay.values });
    if (result === "cancelled") {
      await this.#cancelled(started.order_no);
    } else if (result === "paid" || result === "already_paid") {
      this.bills = undefined;
      this.#showPaid(started.order_no);
    } else {
      this.#goList();
    }
  }

  async #cancelled(orderNo) {
    try {
      await this.product.cancelPayment(orderNo);
      this.#say("已取消支付，没有扣款。");
    } catch (error) {
      this.#tell("已取消支付", error);
    }
    this.#draw();
  }

  #showPaid(orderNo) {
    this.page = "list";
    this.tab = "paid";
    this.highlighted = orderNo;
    this.#draw();
    this.refresh();
    if (orderNo) this.#follow(orderNo);
  }

  // Asks after a payment until it has come to rest, and redraws the list with each step.
  async #follow(orderNo) {
    if (this.followed.has(orderNo)) return;
    this.followed.add(orderNo);
    let before = "";
    try {
      for (let times = 0; times < FOLLOW_TIMES_MAX && !this.closed; times += 1) {
        await wait(FOLLOW_MILLISECONDS[Math.min(times, FOLLOW_MILLISECONDS.length - 1)]);
        let payment;
        try {
          payment = await this.product.payment(orderNo);
        } catch {
          continue;
        }
        if (payment.status !== before) {
          before = payment.status;
          if (this.shown && this.page === "list") await this.refresh();
          this.phone.listeners.changed();
        }
        if (!MOVING.has(payment.status)) return;
      }
    } finally {
      this.followed.delete(orderNo);
    }
  }

  // ------------------------------------------------------------ what all pages share

  #goList() {
    this.page = "list";
    this.#draw();
    this.refresh();
  }

  #usePatient(patientId) {
    this.patient = this.patients.find((patient) => patient.patient_id === patientId);
    this.bills = undefined;
    this.paid = undefined;
    this.chosen.clear();
    this.refresh();
  }

  #unbind() {
    this.#dialog("解除绑定？", `${this.patient.masked_name}的账单将不再显示，也收不到消息。`, [
      ["返回", null],
      [
        "解除绑定",
        () =>
          this.#busy(async () => {
            await this.product.unbind(this.patient.patient_id);
            this.unbound = true;
            this.patients = await this.product.patients();
            this.#choose();
            this.bills = undefined;
            this.paid = undefined;
            this.phone.happened("bound", { bound: this.isBound });
            this.open("pages/bills/index");
          }),
      ],
    ]);
  }

  #bar(title, onBack) {
    return h(
      "header",
      { class: "bar mini-bar" },
      onBack
        ? h("button", { type: "button", class: "back", "aria-label": "返回", "data-key": "back", on: { click: onBack } }, "‹")
        : null,
      h("h3", {}, title),
      h(
        "span",
        { class: "capsule" },
        h("i", { "aria-hidden": "true" }, "•••"),
        h(
          "button",
          { type: "button", "aria-label": "关闭小程序，回到微信", "data-key": "capsule", on: { click: () => this.phone.open("home") } },
          h("i", { class: "ring" }),
        ),
      ),
    );
  }

  #trouble(text) {
    return h(
      "div",
      { class: "trouble" },
      h("p", {}, text),
      h("button", { type: "button", class: "mini-small", "data-key": "again", on: { click: () => this.refresh() } }, "再试一次"),
    );
  }

  #draw() {
    if (!this.shown || this.closed) return;
    if (this.failure) {
      replace(
        this.phone.screen,
        this.#bar("门诊缴费"),
        h(
          "div",
          { class: "trouble" },
          h("p", {}, this.failure.message),
          h("button", { type: "button", class: "mini-small", on: { click: () => this.#retryStart() } }, "再试一次"),
        ),
      );
      return;
    }
    const pages = { bind: () => this.#bindPage(), list: () => this.#listPage(), bill: () => this.#billPage() };
    const page = this.patient ? (this.page === "bind" ? "list" : this.page) : "bind";
    replace(this.phone.screen, pages[page]());
  }

  // One thing at a time; what the product refuses is shown in its own words.
  async #busy(work, handled = () => false) {
    if (this.working) return;
    this.working = true;
    this.phone.screen.classList.add("busy");
    let trouble = null;
    try {
      await work();
    } catch (error) {
      if (!(error instanceof Refused || error instanceof Mistake)) throw error;
      trouble = error;
    } finally {
      this.working = false;
      this.phone.screen.classList.remove("busy");
    }
    if (trouble && !handled(trouble)) this.#tell("没有办成", trouble);
  }

  #tell(title, error) {
    this.#dialog(title, error.message, [["知道了", null]]);
  }

  #say(text) {
    this.saying = text;
    clearTimeout(this.sayingTimer);
    this.sayingTimer = setTimeout(() => {
      this.saying = "";
      this.#draw();
    }, 5000);
    if (this.page !== "bind") this.#draw();
  }

  #dialog(title, text, choices) {
    this.phone.dialog(title, text, choices);
  }
}

const keyOf = (bill) => `${bill.branch}/${bill.bill_id}`;
const pair = (term, value) => [h("dt", {}, term), h("dd", {}, value)];

// As the product masks a name, to find this person among the bound ones.
function masked(name) {
  if (/^[\x00-\x7f]*$/.test(name)) {
    const parts = name.trim().split(/\s+/);
    return [...parts.slice(0, 1), ...parts.slice(1).slice(-1)].map((part) => `${part[0]}***`).join(" ");
  }
  if (name.length <= 2) return `${name[0]}*`;
  return name[0] + "*".repeat(name.length - 2) + name.at(-1);
}
