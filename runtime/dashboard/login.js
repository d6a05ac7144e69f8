// The token goes up once as JSON; what comes back is a cookie that no script can read.

const form = document.getElementById("login");
const token = document.getElementById("token");
const message = document.getElementById("message");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  message.textContent = "";
  message.dataset.tone = "alarm";
  try {
    const answer = await fetch("api/login", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ token: token.value.trim() }),
    });
    if (answer.ok) {
      location.replace("./");
      return;
    }
    message.textContent = sentence((await answer.json()).error);
  } catch {
    message.textContent = "The line does not answer.";
  }
  token.select();
});

function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}
