// The search box of a report: shows the details in which a cell or the summary has the text, and marks the text's cells.
// It reads text and sets classes; it writes no HTML. Without scripts the box stays hidden and all details are there.
(() => {
  const box = document.getElementById("search-text");
  const count = document.getElementById("search-count");
  const normalise = (text) => text.normalize("NFKC").toLowerCase().replace(/\s+/g, " ").trim();
  const searched = [...document.querySelectorAll("#searched details")].map((element) => ({
    element,
    openAtFirst: element.open,
    cells: [...element.querySelectorAll("summary, td")].map((cell) => ({ cell, text: normalise(cell.textContent) })),
  }));

  const search = () => {
    const query = normalise(box.value);
    let matches = 0;
    for (const { element, openAtFirst, cells } of searched) {
      let hits = 0;
      for (const { cell, text } of cells) {
        const isHit = query !== "" && text.includes(query);
        cell.classList.toggle("hit", isHit);
        hits += isHit;
      }
      element.hidden = query !== "" && hits === 0;
      element.open = query === "" ? openAtFirst : hits > 0;
      matches += hits > 0;
    }
    count.textContent = query === "" ? "" : `in ${matches} of ${searched.length}`;
  };

  box.addEventListener("input", search);
  box.closest(".search").hidden = false;
  // A browser may fill the box again when it comes back to the page.
  search();
})();
