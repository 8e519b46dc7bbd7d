
"use strict";
(() => {
  // Search, filters and order of the utterances. Without this script the page is complete, in its first order.
  // The text of this file stands in well-formed XML, so it has no ampersand and no less-than sign.
  const tools = document.querySelector(".tools");
  if (!tools) return;
  const list = tools.parentElement;
  const plain = (text) => text.normalize("NFC").toLowerCase();
  const cards = Array.from(list.querySelectorAll(":scope > article"), (card, place) => ({ card, place, text: "" }));
  const number = (item, name) => {
    const value = Number.parseFloat(item.card.dataset[name]);
    return Number.isFinite(value) ? value : Infinity;
  };
  const orders = {
    worst: (item) => item.place,
    place: (item) => number(item, "place"),
    longest: (item) => -(number(item, "seconds") === Infinity ? 0 : number(item, "seconds")),
    shortest: (item) => number(item, "seconds"),
    errors: (item) => -number(item, "errors"),
    unsure: (item) => number(item, "confidence"),
  };
  const search = tools.querySelector("input");
  const filters = Array.from(tools.querySelectorAll("select[data-field]"));
  const order = tools.querySelector("select[data-order]");
  const status = tools.querySelector("[role=status]");

  const isShown = (item, words) => {
    for (const filter of filters) {
      if (filter.value === "") continue;
      const has = item.card.dataset[filter.dataset.field] || "";
      if (filter.dataset.field === "signs") {
        const signs = has.split(" ").filter(Boolean);
        if (!(filter.value === "*" ? signs.length : signs.includes(filter.value))) return false;
      } else if (has !== filter.value.slice(1)) return false;
    }
    if (!words.length) return true;
    item.text = item.text || plain(item.card.textContent);
    return words.every((word) => item.text.includes(word));
  };

  const filterCards = () => {
    const words = plain(search.value).split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const item of cards) {
      const stays = isShown(item, words);
      item.card.hidden = !stays;
      shown += stays ? 1 : 0;
    }
    status.textContent = `${shown.toLocaleString("en")} of ${cards.length.toLocaleString("en")} shown`;
  };

  const sortCards = () => {
    const key = orders[order.value];
    cards.sort((one, other) => key(one) - key(other) || one.place - other.place);
    list.append(...cards.map((item) => item.card));
  };

  let waiting = 0;
  search.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(filterCards, 120);
  });
  for (const filter of filters) filter.addEventListener("change", filterCards);
  order.addEventListener("change", sortCards);
  tools.querySelector("button").addEventListener("click", () => {
    search.value = "";
    for (const filter of filters) filter.value = "";
    order.value = "worst";
    sortCards();
    filterCards();
    search.focus();
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, textarea");
    if (event.key === "/") {
      if (typing) return;
      event.preventDefault();
      search.focus();
    } else if (event.key === "Escape") {
      if (event.target !== search) return;
      search.value = "";
      filterCards();
    }
  });
  tools.hidden = false;
  filterCards();
})();
