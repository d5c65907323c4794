// The printed prescription: what a patient carries away from the doctor, with its code; and how the code comes about.

import { get, post } from "./api.js";
import { $, h, longDayText, replace, toast, yuan } from "./dom.js";

const MASK = (name) => (name.length <= 2 ? `${name[0]}*` : name[0] + "*".repeat(name.length - 2) + name.at(-1));

export class Paper {
  constructor(world, phones, listeners) {
    this.world = world;
    this.phones = phones;
    this.listeners = listeners;
    for (const name of ["mode", "factor"]) {
      $(`paper-${name}`).addEventListener("change", (event) => this.#choose(name, event.target.value));
    }
    this.#draw(null);
  }

  show({ paper }) {
    if (paper.mode === this.mode && paper.factor === this.factor) return;
    this.mode = paper.mode;
    this.factor = paper.factor;
    $("paper-mode").value = paper.mode;
    $("paper-factor").value = paper.factor;
    if (this.billId) this.print(this.billId);
  }

  async print(billId) {
    this.billId = billId;
    try {
      const { papers } = await get("papers");
      this.#draw(papers.find((paper) => paper.bill_id === billId) ?? null);
    } catch (error) {
      toast(error.message);
    }
  }

  async #choose(name, value) {
    try {
      await post("desk/paper", { [name]: value });
      toast("已改：以后打印的处方按新方式");
    } catch (error) {
      toast(error.message);
    }
    this.listeners.changed();
  }

  #draw(paper) {
    if (!paper) {
      replace($("paper"), h("p", { class: "hint" }, "开一张单，处方笺就打印在这里"));
      return;
    }
    const code = paper.content.startsWith("http")
      ? h("img", { class: "paper-code", src: `/paper/${paper.bill_id}/code.svg`, alt: "处方上的二维码", width: 132, height: 132 })
      : h("p", { class: "paper-code none" }, paper.content ? "没有二维码：在手机上打开「扫处方」，扫下面的条形码" : "纸上没有码");
    replace(
      $("paper"),
      h(
        "article",
        { class: "paper", "data-paper": paper.bill_id, "data-content": paper.content },
        h("h3", {}, this.world.institution_name, h("small", {}, "门诊处方笺")),
        h(
          "dl",
          {},
          [
            ["姓名", MASK(paper.patient_name)],
            ["科室", paper.department],
            ["医生", paper.doctor],
            ["日期", longDayText(new Date(paper.issued_at))],
            ["单号", paper.bill_id],
            ["金额", `${yuan(paper.to_pay_fen)} 元`],
          ].map(([term, value]) => [h("dt", {}, term), h("dd", {}, value)]),
        ),
        code,
        h("p", { class: "paper-note" }, paper.content.startsWith("http") ? "微信扫码缴费" : ""),
        paper.content
          ? h("p", { class: "paper-bars" }, h("img", { src: `/paper/${paper.bill_id}/bars.svg`, alt: "处方单号的条形码" }), paper.bill_id)
          : null,
      ),
      h(
        "div",
        { class: "buttons" },
        this.phones.map((phone) =>
          h(
            "button",
            {
              type: "button",
              disabled: !paper.content,
              "data-scan-with": phone.number,
              on: {
                click: () => {
                  phone.openScanned(paper.content);
                  phone.happened("scanned", { bill_id: paper.bill_id });
                },
              },
            },
            `用手机${phone.number}扫`,
          ),
        ),
      ),
    );
  }
}
