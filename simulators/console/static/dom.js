// Building pages: text is always text, never markup, so nothing needs escaping.

export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else if (name === "class") {
      element.className = value;
    } else if (value === true) {
      element.setAttribute(name, "");
    } else {
      element.setAttribute(name, String(value));
    }
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// Shows new content in place of the old. The keyboard's place is kept where an element carries data-key.
export function replace(container, ...children) {
  const active = document.activeElement;
  const key = active && container.contains(active) ? active.dataset.key : undefined;
  const scrolled = container.scrollTop;
  container.replaceChildren(...children.flat(Infinity).filter(Boolean));
  container.scrollTop = scrolled;
  if (key !== undefined) container.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
}

// Runs `draw` only when what it draws has changed: a page that stands still keeps its focus and its scroll.
export function whenChanged(draw) {
  let before;
  return (value, ...rest) => {
    const now = JSON.stringify([value, ...rest]);
    if (now === before) return false;
    before = now;
    draw(value, ...rest);
    return true;
  };
}

export const $ = (id) => document.getElementById(id);

export function yuan(fen) {
  const sign = fen < 0 ? "-" : "";
  const whole = Math.abs(fen);
  return `${sign}${Math.floor(whole / 100)}.${String(whole % 100).padStart(2, "0")}`;
}

export function yuanToFen(text) {
  const [whole, part = ""] = text.split(".");
  return Number(whole) * 100 + Number(part.padEnd(2, "0"));
}

const shanghai = (options) => new Intl.DateTimeFormat("zh-CN", { timeZone: "Asia/Shanghai", hourCycle: "h23", ...options });
const CLOCK = shanghai({ hour: "2-digit", minute: "2-digit" });
const SECONDS = shanghai({ hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY = shanghai({ month: "numeric", day: "numeric" });
const LONG_DAY = shanghai({ year: "numeric", month: "long", day: "numeric", weekday: "short" });

export const clockText = (moment) => CLOCK.format(moment);
export const secondsText = (moment) => SECONDS.format(moment);
export const longDayText = (moment) => LONG_DAY.format(moment);

// 14:05 on the same day, else 3/5 14:05.
export function whenText(text, now) {
  if (!text) return "";
  const moment = new Date(text);
  return LONG_DAY.format(moment) === LONG_DAY.format(now)
    ? clockText(moment)
    : `${DAY.format(moment)} ${clockText(moment)}`;
}

let toastTimer;
export function toast(text) {
  const box = $("toast");
  box.textContent = text;
  box.classList.add("shown");
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => box.classList.remove("shown"), 2800);
}

export const wait = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
