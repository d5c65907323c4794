// The guided stories: what to do, where, and how the page knows that it has been done. Targets are looked up anew
// each time, because screens are drawn anew.

const one = (selector) => document.querySelector(selector);
const onPhone = (number, selector) => one(`[data-phone="${number}"] ${selector}`);

const issue = (say) => ({
  say,
  panel: "desk",
  target: () => one("#issue .primary"),
  done: (story) => story.saw("issued"),
});

const keypad = {
  say: () => "在支付窗口输入任意六位数字。",
  panel: "phone",
  target: (story) => onPhone(story.at, ".keypad"),
  done: (story) => story.saw("paid", ({ values }) => values.result === "paid"),
};

const agree = (said) => ({
  say: (story) => (story.row?.verdict === "differ" ? "三本账不一致：看标红的一行。" : "钱已付，医院正在记账，看三本账。"),
  panel: "books",
  target: () => one("#books tbody"),
  done: (story) => story.row?.verdict === "agree",
  said,
});

const paying = (say, target) => ({
  say,
  panel: "phone",
  target: (story) => onPhone(story.at, ".pay-sheet") ?? target(story.at),
  done: (story) => story.saw("paying"),
});

const PAY_BUTTONS = ['[data-key="pay"]', '[data-key="merge-pay"]', "[data-open-bill]", ".message-card:last-of-type", ".banner", '[data-row="chat"]'];
const firstOnPhone = (number, selectors) => selectors.map((each) => onPhone(number, each)).find(Boolean) ?? onPhone(number, ".web");

export const STORIES = [
  {
    key: "message",
    title: "已绑定：收消息缴费",
    people: ["王秀兰"],
    phone: 1,
    steps: [
      {
        ...issue((story) => {
          if (story.bound) return `${story.person.name}已在手机上绑定。在「医生工作台」点「开单」。`;
          if (!story.opened) return "正在打开手机……";
          return `先在手机${story.at}上打开小程序，点「绑定」，${story.person.name}才收得到消息；然后点「开单」。`;
        }),
        // Whoever is chosen at the desk instead may have to bind first.
        target: (story) => (story.bound ? one("#issue .primary") : onPhone(story.at, '[data-key="bind"]') ?? onPhone(story.at, '[data-row="mini"]')),
      },
      {
        say: (story) =>
          story.waitedLong
            ? "消息还没到（也许开着故障）。也可以直接在手机上打开小程序。"
            : story.bound
              ? `单已开出，看手机${story.at}：消息马上就到。`
              : `单已开出。还没绑定，收不到消息：请在手机${story.at}的小程序里点「绑定」。`,
        panel: "phone",
        target: (story) => onPhone(story.at, '[data-key="bind"]'),
        done: (story) => story.saw("message") || story.saw("bill") || story.saw("paying"),
      },
      {
        say: (story) => `手机${story.at}收到「待缴费通知」。点开消息，再点「去缴费」；在公众号里发「缴费」也行。`,
        panel: "phone",
        target: (story) => firstOnPhone(story.at, PAY_BUTTONS),
        done: (story) => story.saw("bill") || story.saw("page") || story.saw("paying"),
      },
      paying(
        () => "核对金额，点「确认支付」。",
        (number) => firstOnPhone(number, PAY_BUTTONS),
      ),
      keypad,
      agree("付好了：手机收到缴费成功消息和就诊指引，三本账一致。接着试试别的故事、拨时钟、开故障。"),
    ],
  },
  {
    key: "paper",
    title: "没绑定：扫纸上的码",
    // A stranger can be one only once: the next telling has the next one.
    people: ["李大山", "何佩玲", "林志成", "赵国强"],
    phone: 2,
    steps: [
      issue((story) => `${story.person.name}没有绑定过。在「医生工作台」点「开单」，处方会打印出来。`),
      {
        say: () => "处方打印好了。点「用手机2扫」。",
        panel: "desk",
        target: () => one('[data-scan-with="2"]'),
        done: (story) => story.saw("scanned"),
      },
      paying(
        (story) => `在手机2上同意隐私说明，填后四位（登记的手机尾号 ${story.person.phone.slice(-4)}），核对后点「确认缴费」。`,
        (number) => onPhone(number, ".web iframe"),
      ),
      keypad,
      agree("陌生人扫码也付好了：三本账一致，纸上和页面上都没有露出全名。"),
    ],
  },
  {
    key: "refused",
    title: "合并支付，医院退回一张",
    people: ["王秀兰"],
    phone: 1,
    steps: [
      issue(() => "先给王秀兰开第一张单。"),
      {
        ...issue(() => "再开第二张，例如「检查检验」。"),
        done: (story) => story.count("issued") >= 2,
        fault: "hospital.refuses_confirm",
      },
      paying(
        () => "医院会拒收其中一张。在手机1上打开小程序，勾选两张，点「合并支付」。",
        (number) => firstOnPhone(number, ['[data-key^="merge-"]:not(:checked):not(button)', '[data-key="merge-pay"]', '[data-row="mini"]']),
      ),
      keypad,
      {
        say: (story) =>
          story.row?.wechatpay.notes.length ? "医院拒收的一张正在原路退回，微信要几分钟。点时钟「+10 分钟」快进。" : "钱已付，医院正在记账……",
        panel: "control",
        target: (story) => (story.row?.wechatpay.notes.length ? one('[data-minutes="10"]') : null),
        done: (story) => story.clock > story.clockAt || story.row?.verdict === "agree",
      },
      agree("医院拒收的一张已原路退回，另一张照常入账，三本账一致。手机上也说了退的是哪一张。"),
    ],
  },
];
