"use strict";

// Alpine's build without eval lets expressions name only what is registered here, and nothing of the window.
document.addEventListener("alpine:init", () => {
  const shown = {
    location: {
      get pathname() {
        return location.pathname;
      },
      get search() {
        return location.search;
      },
    },
  };

  // What unfold's templates name on every page.
  Alpine.data("theme", (chosen) => ({ ...theme(chosen), moveRecords, sortRecords, window: shown }));
  Alpine.data("searchForm", searchForm);
  Alpine.data("searchDropdown", searchDropdown);
  Alpine.data("searchCommand", searchCommand);

  Alpine.data("page", (firstTab) => ({
    activeTab: (firstTab && getCurrentTab()) || firstTab,
    sidebarMobileOpen: false,
    sidebarDesktopOpen: localStorage.getItem("sidebarDesktopOpen") !== "0",
    init() {
      this.$watch("sidebarDesktopOpen", (open) => localStorage.setItem("sidebarDesktopOpen", open ? "1" : "0"));
    },
  }));
});
