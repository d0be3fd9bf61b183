// What the theme leaves to the keyboard and to screen readers.

// A formula that scrolls sideways can be reached and scrolled without a mouse.
function reachable() {
  for (const formula of document.querySelectorAll('.bd-article mjx-container[display="true"]')) {
    if (formula.scrollWidth > formula.clientWidth) formula.tabIndex = 0;
    else formula.removeAttribute("tabindex");
  }
}

addEventListener("load", async () => {
  // docutils calls the bibliography a list, but its entries are no list items
  document.querySelectorAll('.citation-list[role="list"]').forEach(list => list.removeAttribute("role"));
  await window.MathJax?.startup?.promise;
  reachable();
});
addEventListener("resize", reachable);

// From a disk the search finds pages, but a browser does not let it read them for an excerpt: don't try.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
