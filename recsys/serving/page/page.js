"use strict";
// The page of `recsys serve`. Everything that comes from the server is put in as text, never as markup.

const part = (id) => document.getElementById(id);
const state = { user: null, answers: new Map(), key: sessionStorage.getItem("key"), models: [], events: false, likeEvent: null,
  questions: null, drawing: 0 };
const HIDDEN = ["overview", "description"];

function element(name, properties = {}, children = []) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

async function call(method, path, body) {
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
  if (state.key) headers["X-API-Key"] = state.key;
  const response = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  const answer = await response.json();
  if (response.status === 401) part("key-form").hidden = false;
  if (!response.ok) throw new Error(answer.detail || response.statusText);
  return answer;
}

const url = (path, query) => `${path}?${new URLSearchParams(query)}`;

function say(text, isError = false) {
  part("status").textContent = text;
  part("status").classList.toggle("error", isError);
}

function attributesText(attributes) {
  const shown = [];
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === "" || HIDDEN.includes(name) || name.startsWith("_")) continue;
    const text = Array.isArray(value) ? value.join(", ") : String(value).split("|").join(", ");
    if (text.length <= 120) shown.push(text);
  }
  return shown.join(" · ");
}

function answerButtons(item) {
  const title = item.title || item.item;
  const button = (text, value) => {
    const made = element("button", { type: "button", textContent: text });
    made.setAttribute("aria-label", `${text}: ${title}`);
    made.setAttribute("aria-pressed", String(state.answers.get(item.item)?.value === value));
    made.addEventListener("click", () => answerItem(item, value));
    return made;
  };
  return element("div", { className: "row" }, [button("Like", 1), button("Dislike", -1)]);
}

function itemElement(item) {
  const head = element("div", { className: "head" });
  if (item.rank) head.append(element("span", { className: "rank", textContent: `${item.rank}.` }));
  head.append(element("span", { className: "title", textContent: item.title || item.item }));
  const made = element("li", {}, [head]);
  const attributes = attributesText(item.attributes);
  if (attributes) made.append(element("p", { textContent: attributes }));
  if (item.reason) made.append(element("p", { className: "reason", textContent: item.reason }));
  if (item.source) {
    const chance = item.probability === undefined ? "" : `, shown here with probability ${item.probability.toFixed(3)}`;
    made.append(element("p", { textContent: `from ${item.source}, score ${item.score.toPrecision(4)}${chance}` }));
  }
  made.append(answerButtons(item));
  return made;
}

function requestOf(model) {
  const request = { model, k: 10, reasons: true, details: true };
  if (state.user) request.user = state.user;
  const history = [...state.answers.values()].filter((answer) => !answer.stored);
  if (history.length) request.history = history.map(({ item, value }) => ({ item, value }));
  const rules = part("rules").value.trim();
  if (rules) request.rules = JSON.parse(rules);
  return request;
}

function describe(answer) {
  const parts = [];
  if (state.user) parts.push(answer.has_history ? `User ${state.user}.` : `User ${state.user}: not known to the model.`);
  else parts.push("Somebody new.");
  if (answer.new_events) parts.push(`New events taken in: ${answer.new_events}.`);
  if (answer.shortfall !== "none") parts.push(`The list is short: ${answer.shortfall}.`);
  for (const [rule, count] of Object.entries(answer.removed || {})) parts.push(`Removed by the rule ${rule}: ${count}.`);
  return parts.join(" ");
}

async function showLists() {
  const drawing = ++state.drawing;
  drawAnswers();
  try {
    const other = part("other").value;
    const first = await call("POST", "recommend", requestOf(part("model").value));
    const second = other ? await call("POST", "recommend", requestOf(other)) : null;
    const ids = (answer) => answer.items.map((item) => item.item);
    const measured = second ? await call("POST", "agreement", { a: ids(first), b: ids(second) }) : null;
    // An older answer may come after a newer one.
    if (drawing !== state.drawing) return;
    drawList("first", first.model, first.items);
    part("second-part").hidden = !second;
    if (second) drawList("second", second.model, second.items);
    const number = (value) => (value === null ? "undefined" : value.toFixed(3));
    part("agreement").textContent = measured
      ? `${measured.common} items in common; Kendall's tau ${number(measured.tau)}, rank-biased overlap ${number(measured.rbo)}.`
      : "";
    say(describe(first));
  } catch (error) {
    if (drawing === state.drawing) say(error.message, true);
  }
}

function drawList(name, model, items) {
  part(`${name}-title`).textContent = model;
  part(name).replaceChildren(...items.map(itemElement));
}

function drawAnswers() {
  part("chosen-part").hidden = state.answers.size === 0;
  part("chosen").replaceChildren(...[...state.answers.values()].map((answer) => {
    const text = `${answer.value > 0 ? "Like" : "Dislike"}: ${answer.title}`;
    if (answer.stored) return element("li", { textContent: text });
    const made = element("button", { type: "button", textContent: `${text} ×` });
    made.setAttribute("aria-label", `Forget ${text}`);
    made.addEventListener("click", () => { state.answers.delete(answer.item); showLists(); });
    return element("li", {}, [made]);
  }));
}

async function answerItem(item, value) {
  const answer = { item: item.item, title: item.title || item.item, value, stored: false };
  const user = state.user;
  try {
    if (user && state.events) {
      const event = { id: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`, user, item: item.item, value };
      if (state.likeEvent !== null) event.event = state.likeEvent;
      await call("POST", "events", { events: [event] });
      answer.stored = true;
    }
    // Somebody may have been chosen meanwhile, to whom this answer does not belong.
    if (user !== state.user) return;
    state.answers.set(item.item, answer);
    await showLists();
    part("list").focus({ preventScroll: true });
  } catch (error) {
    say(error.message, true);
  }
}

async function nextQuestion() {
  const body = { model: part("model").value, answers: state.questions, k: 10, details: true };
  const answer = await call("POST", "onboard", body);
  const question = answer.question;
  part("question").hidden = question === null;
  drawList("first", `${answer.model}, by your answers`, answer.items);
  part("second-part").hidden = true;
  part("agreement").textContent = "";
  if (question === null) return say("That was the last question.");
  part("question").dataset.item = question.item;
  const about = attributesText(question.attributes);
  part("question-text").textContent = `${question.title || question.item}${about ? ` (${about})` : ""}`;
  say(`${state.questions.length} answers so far.`);
}

async function answerQuestion(answer) {
  try {
    if (answer === "") {
      part("question").hidden = true;
      part("ask").focus();
      return;
    }
    state.questions.push({ item: part("question").dataset.item, answer });
    await nextQuestion();
  } catch (error) {
    say(error.message, true);
  }
}

async function findItems() {
  const found = await call("GET", url("items", { search: part("item").value, limit: 8, model: part("model").value }));
  part("found").replaceChildren(...found.items.map(itemElement));
  if (!found.items.length) say("Nothing has this in its title.");
}

async function suggestUsers() {
  const query = { search: part("user").value, limit: 10, model: part("model").value };
  const found = await call("GET", url("users", query));
  part("users").replaceChildren(...found.users.map((user) => element("option", { value: user })));
}

async function start() {
  const ready = await call("GET", "ready");
  state.models = ready.models.map((model) => model.model);
  state.events = ready.events;
  state.likeEvent = ready.like_event;
  part("about").textContent = ready.models
    .map((model) => `${model.model}: ${model.kind}, ${model.items.toLocaleString("en")} items, version ${model.version}`)
    .join("; ");
  const options = (names) => names.map((name) => element("option", { value: name, textContent: name }));
  part("model").replaceChildren(...options(state.models));
  part("other").replaceChildren(element("option", { value: "", textContent: "nothing" }), ...options(state.models));
  part("compare-part").hidden = state.models.length < 2;
  await suggestUsers();
  await showLists();
}

// A failure of any action is said, never lost.
const on = (id, event, action) => part(id).addEventListener(event, async (happening) => {
  try {
    await action(happening);
  } catch (error) {
    say(error.message, true);
  }
});

on("key-form", "submit", (happening) => {
  happening.preventDefault();
  state.key = part("key").value;
  sessionStorage.setItem("key", state.key);
  part("key-form").hidden = true;
  return start();
});
on("user-form", "submit", (happening) => {
  happening.preventDefault();
  state.user = part("user").value.trim() || null;
  state.answers.clear();
  return showLists();
});
on("item-form", "submit", (happening) => { happening.preventDefault(); return findItems(); });
let typing = 0;
on("user", "input", async () => {
  // One search for what is typed in a moment, not one per letter.
  const mine = ++typing;
  await new Promise((done) => setTimeout(done, 200));
  if (mine === typing) await suggestUsers();
});
on("model", "change", showLists);
on("other", "change", showLists);
on("apply", "click", showLists);
on("forget", "click", () => { state.answers.clear(); return showLists(); });
on("ask", "click", async () => {
  state.questions = [];
  await nextQuestion();
  part("question").querySelector("button").focus();
});
for (const button of part("question").querySelectorAll("button"))
  button.addEventListener("click", () => answerQuestion(button.dataset.answer));
start().catch((error) => say(error.message, true));
