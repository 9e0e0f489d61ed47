//! What an operator does on the pages.

use cap_core::storage::Status;
use fantoccini::key::Key;
use serde_json::json;

use crate::chrome::{Chrome, Look};
use crate::site::Site;

#[tokio::test]
async fn log_in_filter_open_and_rerun() {
    let Some(chrome) = Chrome::start(Look::Desktop).await else { return };
    let site = Site::start().await;
    site.park(1..=3, "order.placed", r#"{"order":1}"#).await;
    site.park([4], "order.paid", r#"{"order":4}"#).await;
    site.log_in(&chrome).await;
    chrome.picture("overview").await;
    chrome.click("nav a[href$='/parked']").await;
    chrome.click(".filter summary").await;
    chrome.type_into(".fields input[name=topic]", "order.paid").await;
    chrome.click(".fields button.primary").await;
    chrome.until("location.search.includes('topic=order.paid')").await;
    assert_eq!(
        chrome.ask("return document.querySelectorAll('tbody tr').length").await,
        1,
        "filtered by the URL"
    );
    chrome.picture("parked").await;
    chrome.click("a.topic").await;
    assert_eq!(chrome.text("#payload").await, "{\n  \"order\": 4\n}");
    chrome.picture("message").await;
    chrome.click("button[value=rerun]").await;
    assert!(chrome.text(".notice").await.contains("1: re-run"));
    assert_eq!(site.row(4).await.status, Status::Scheduled);
    chrome.click("nav a[href$='/audit']").await;
    assert!(chrome.text("tbody").await.contains("alice"));
    chrome.end().await;
}

#[tokio::test]
async fn edit_keeps_every_digit() {
    let Some(chrome) = Chrome::start(Look::Dark).await else { return };
    let site = Site::start().await;
    site.park(
        [1],
        "order.placed",
        r#"{"amount":79228162514264337593543950335,"id":9007199254740993,"shelf":""}"#,
    )
    .await;
    site.log_in(&chrome).await;
    chrome.go(&format!("{}/message/received/1", site.url)).await;
    chrome.picture("message-dark").await;
    chrome.click("a[href$='/edit']").await;
    // Behind the first quote of the empty text, which is seven characters before the end.
    chrome.ask("const t = document.querySelector('textarea'); t.focus(); t.setSelectionRange(t.value.length - 3, t.value.length - 3)").await;
    chrome.press("B7").await;
    chrome.picture("edit-dark").await;
    chrome.click(".edit button.primary").await;
    assert!(chrome.text(".notice").await.contains("edited"));
    let expected = r#"{"amount":79228162514264337593543950335,"id":9007199254740993,"shelf":"B7"}"#;
    assert_eq!(site.row(1).await.message.body, expected);
    chrome.end().await;
}

#[tokio::test]
async fn all_that_match_are_rerun_after_a_preview() {
    let Some(chrome) = Chrome::start(Look::Desktop).await else { return };
    let site = Site::start().await;
    site.park(1..=300, "order.placed", "1").await;
    site.park([301], "order.paid", "1").await;
    site.log_in(&chrome).await;
    chrome.go(&format!("{}/parked?topic=order.placed", site.url)).await;
    chrome.click("button[value=rerun-all]").await;
    assert!(chrome.text(".total").await.contains("300"));
    assert_eq!(site.row(1).await.status, Status::Failed, "a preview changes nothing");
    chrome.picture("preview").await;
    chrome.click(".form-end button.primary").await;
    assert!(chrome.text(".notice").await.contains("300: re-run"));
    assert_eq!(site.row(1).await.status, Status::Scheduled);
    assert_eq!(site.row(301).await.status, Status::Failed);
    chrome.end().await;
}

#[tokio::test]
async fn keys_alone_are_enough() {
    let Some(chrome) = Chrome::start(Look::Desktop).await else { return };
    let site = Site::start().await;
    site.park(1..=3, "order.placed", "1").await;
    site.log_in(&chrome).await;
    chrome.press("gf").await;
    chrome.until("location.pathname.endsWith('/parked') && document.querySelector('tbody tr')").await;
    chrome.press("jjx").await;
    chrome.until("document.querySelector('#selected-count').textContent === '1'").await;
    chrome.until("document.querySelectorAll('tbody tr')[1].classList.contains('checked')").await;
    chrome.press_key(Key::Enter).await;
    chrome.until("location.pathname.endsWith('/message/received/2')").await;
    chrome.press("/").await;
    chrome.until("document.activeElement.id === 'q'").await;
    chrome.press("m3").await;
    chrome.press_key(Key::Enter).await;
    chrome.until("location.pathname.endsWith('/message/received/3')").await;
    chrome.press("?").await;
    chrome.until("document.querySelector('#help').open").await;
    chrome.press_key(Key::Escape).await;
    chrome.until("!document.querySelector('#help').open").await;
    // To the content past the navigation, and by Tab to the button.
    chrome.ask("document.activeElement.blur()").await;
    chrome.press_key(Key::Tab).await;
    chrome.until("document.activeElement.classList.contains('skip')").await;
    chrome.press_key(Key::Enter).await;
    for _ in 0..2 {
        chrome.press_key(Key::Tab).await;
    }
    chrome.until("document.activeElement.value === 'rerun'").await;
    chrome.press_key(Key::Enter).await;
    chrome.find(".notice").await;
    assert_eq!(site.row(3).await.status, Status::Scheduled);
    chrome.end().await;
}

#[tokio::test]
async fn numbers_renew_themselves_until_the_tab_is_hidden() {
    let Some(chrome) = Chrome::start(Look::Desktop).await else { return };
    let site = Site::start().await;
    site.log_in(&chrome).await;
    let parked = "document.querySelector('[data-part=card-parked] .card-number').textContent.trim()";
    chrome.until(&format!("{parked} === '0'")).await;
    chrome.ask("document.querySelector('[data-part=card-parked]').focus()").await;
    site.park(1..=2, "order.placed", "1").await;
    chrome.until("document.querySelector('[data-part=groups]').textContent.includes('stock.v1')").await;
    assert_eq!(
        chrome.ask("return document.activeElement.dataset.part").await,
        json!("card-parked"),
        "what has the focus stays"
    );
    chrome.ask("document.activeElement.blur()").await;
    chrome.until(&format!("{parked} === '2'")).await;
    let hide = |is_hidden: bool| {
        format!(
            "Object.defineProperty(document, 'hidden', {{ value: {is_hidden}, configurable: true }}); \
             document.dispatchEvent(new Event('visibilitychange'))"
        )
    };
    chrome.ask(&hide(true)).await;
    chrome.until("document.querySelector('#live-state').classList.contains('paused')").await;
    site.park([3], "order.placed", "1").await;
    chrome.ask(&hide(false)).await;
    chrome.until(&format!("{parked} === '3'")).await;
    chrome.end().await;
}

#[tokio::test]
async fn scripts_in_messages_do_not_run() {
    let Some(chrome) = Chrome::start(Look::Desktop).await else { return };
    let site = Site::start().await;
    let hostile = "<img src=x onerror=\"window.hit=1\"><script>window.hit=1</script>";
    site.park([1], hostile, &json!({ hostile: hostile }).to_string()).await;
    site.log_in(&chrome).await;
    for path in ["", "/parked", "/message/received/1", "/message/received/1/edit"] {
        chrome.go(&format!("{}{path}", site.url)).await;
        chrome.find("main").await;
        assert_eq!(chrome.ask("return typeof window.hit").await, "undefined", "{path}");
        // Neither would a script that got into the page.
        chrome
            .ask("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.hit=1\">')")
            .await;
        let inline = "const s = document.createElement('script'); s.textContent = 'window.hit=1'; document.body.append(s)";
        chrome.ask(inline).await;
        assert_eq!(chrome.ask("return typeof window.hit").await, "undefined", "{path}");
    }
    chrome.end().await;
}

#[tokio::test]
async fn language_and_colors_are_chosen() {
    let Some(chrome) = Chrome::start(Look::Desktop).await else { return };
    let site = Site::start().await;
    site.park([1], "order.placed", "1").await;
    site.log_in(&chrome).await;
    chrome.go(&format!("{}/parked?topic=order.placed", site.url)).await;
    chrome.click("button[name=language][value=zh]").await;
    chrome.until("document.documentElement.lang === 'zh'").await;
    assert_eq!(chrome.text("h1").await, "待处理");
    assert!(chrome.url().await.ends_with("/parked?topic=order.placed"), "the filter stays");
    chrome.click("button[name=theme][value=dark]").await;
    chrome.until("document.documentElement.dataset.theme === 'dark'").await;
    let dark = chrome.ask("return getComputedStyle(document.body).backgroundColor").await;
    assert_eq!(dark, "rgb(14, 17, 22)");
    chrome.picture("parked-chinese-dark").await;
    chrome.end().await;
}
