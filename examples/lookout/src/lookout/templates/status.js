// The page replaces what it shows every two seconds, and says so when it cannot.
setInterval(async () => {
  if (document.hidden) return;
  try {
    const answer = await fetch(location.href, { signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error(answer.status);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    document.querySelector("main").replaceWith(fresh.querySelector("main"));
    document.querySelector("link[rel=icon]").replaceWith(fresh.querySelector("link[rel=icon]"));
    document.title = fresh.title;
    document.body.classList.remove("is-stale");
  } catch {
    if (document.body.classList.contains("is-stale")) return;
    document.body.classList.add("is-stale");
    document.querySelector(".stale").textContent = "lookout does not answer: what you see is old.";
  }
}, 2000);
