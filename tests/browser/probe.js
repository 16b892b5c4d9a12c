// Runs at the end of a report in a frame: measures what axe's main rules ask, and sends it as JSON to the page around it.
(() => {
  const rgb = (text) => {
    const part = (text.match(/[\d.]+/g) || [0, 0, 0, 0]).map(Number);
    return part.length < 4 ? [...part, 1] : part;
  };
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3]));
  const light = (c) => {
    const [r, g, b] = c.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => {
    const [hi, lo] = [light(a), light(b)].sort((x, y) => y - x);
    return (hi + 0.05) / (lo + 0.05);
  };
  const canvas = rgb(getComputedStyle(document.body).backgroundColor).slice(0, 3);
  const ground = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.unshift(rgb(getComputedStyle(e).backgroundColor));
    return layers.reduce((under, layer) => over(layer, under), canvas);
  };
  const behind = (text) => {  // the filled shapes of a drawing that a text stands on
    const box = text.getBoundingClientRect();
    const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
    let under = ground(text.closest("figure"));
    for (const shape of text.closest("svg").querySelectorAll("path")) {
      const s = shape.getBoundingClientRect(), style = getComputedStyle(shape);
      if (style.fill === "none" || s.width < 10 || x < s.left || x > s.right || y < s.top || y > s.bottom) continue;
      const fill = rgb(style.fill);
      fill[3] *= Number(style.opacity) * Number(style.fillOpacity);
      under = over(fill, under);
    }
    return under;
  };
  const faint = [];
  for (const element of document.querySelectorAll("body *")) {
    if (["SCRIPT", "STYLE"].includes(element.tagName)) continue;
    if (!element.checkVisibility()) continue;
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own) continue;
    const style = getComputedStyle(element), drawn = element.tagName === "text";
    const ratio = drawn ? contrast(rgb(style.fill).slice(0, 3), behind(element))
                        : contrast(rgb(style.color).slice(0, 3), ground(element));
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) faint.push(`${element.textContent.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  const named = (e) => (e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") || e.labels?.[0]?.textContent || e.textContent).trim();
  const focusable = [...document.querySelectorAll("a[href], button, input, summary, [tabindex]")];
  const graphics = [...document.querySelectorAll("svg")].map((s) => s.closest('[role="img"]') || s);
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  const texts = [...document.querySelectorAll("svg text")].map((e) => (
    { text: e.textContent.trim(), box: e.getBoundingClientRect(), figure: e.closest("figure") }));
  const meet = (a, b) => a.left + 1 < b.right && b.left + 1 < a.right && a.top + 2 < b.bottom && b.top + 2 < a.bottom;
  const trySearch = () => {
    const box = document.querySelector(".search input");
    if (!box) return { boxes: 0 };
    const folds = [...document.querySelectorAll("#searched details")], shown = () => folds.filter((f) => !f.hidden);
    const search = (text) => { box.value = text; box.dispatchEvent(new Event("input")); };
    const state = () => folds.map((f) => [f.hidden, f.open]).join(), first = state();
    const result = { boxes: document.querySelectorAll(".search:not([hidden]) input").length };
    result.all_at_first = shown().length === folds.length;
    search(folds.at(-1).querySelector("summary").textContent.split(":")[0].toUpperCase());
    result.user = { shown: shown().length, open: shown().filter((f) => f.open).length,
      says: document.querySelector(".search output").textContent, hit: folds.at(-1).querySelector("summary").matches(".hit") };
    result.one = `in 1 of ${folds.length}`;
    search("there is no such title");
    result.nothing = { shown: shown().length };
    search("<img src=x onerror=alert(1)> and more");
    result.markup = { shown: shown().length, elements: document.querySelectorAll("img").length };
    search("");
    result.restored = state() === first && document.querySelectorAll(".hit").length === 0;
    return result;
  };
  const found = {
    resources: performance.getEntriesByType("resource").map((r) => r.name),
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    faint,
    unnamed: [...focusable.filter((e) => !named(e)), ...graphics.filter((e) => !e.getAttribute("aria-label"))].map((e) => e.outerHTML.slice(0, 80)),
    headings: [...document.querySelectorAll("h1, h2, h3, h4")].map((h) => Number(h.tagName[1])),
    focus: focusable.filter((e) => !e.classList.contains("skip") && e.checkVisibility()).map((e) => Math.round((e.closest("tr") || e).getBoundingClientRect().top)),
    positive_tabindex: focusable.filter((e) => e.tabIndex > 0).length,
    doubled_ids: ids.filter((id, i) => ids.indexOf(id) !== i),
    language: document.documentElement.lang,
    tables_without_heads: [...document.querySelectorAll("table")].filter((t) => !t.caption || !t.querySelector("th[scope=col]")).length,
    landmarks: Object.fromEntries(["main", "nav", "header"].map((n) => [n, document.querySelectorAll(n).length])),
    width: innerWidth,
    overflow: document.documentElement.scrollWidth - innerWidth,
    // What sticks out to the right, without a part around it that scrolls.
    unreachable: [...document.querySelectorAll("main *")]
      .filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest(".wide, pre"))
      .map((e) => e.outerHTML.slice(0, 80)),
    silent: [...document.querySelectorAll(".wide")]
      .filter((e) => e.scrollWidth > e.clientWidth + 1)
      .filter((e) => (getComputedStyle(e).backgroundImage.match(/linear-gradient/g) || []).length < 4)
      .map((e) => e.outerHTML.slice(0, 80)),
    small: texts.filter(({ text, box }) => text && box.height < 8).map(({ text }) => text),
    texts_in_figures: texts.length,
    overlaps: texts.flatMap((a, i) => texts.slice(i + 1).filter((b) => a.figure === b.figure && meet(a.box, b.box))
      .map((b) => `${a.text} and ${b.text}`)),
    search: trySearch(),
  };
  parent.postMessage(JSON.stringify(found), "*");
})();
