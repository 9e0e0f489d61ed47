//! Whether everybody can use the pages: with a screen reader, with a keyboard, on a phone.

use serde_json::json;

use crate::chrome::{Chrome, Look};
use crate::site::Site;

const PAGES: [&str; 11] = [
    "/failures",
    "/story?id=m1",
    "/search?q=order",
    "",
    "/parked",
    "/received",
    "/delayed",
    "/message/received/1",
    "/message/received/1/edit",
    "/subscriptions",
    "/audit",
];

/// What a page lacks, as a list of texts.
const LACKS: &str = r"
    const lacks = [];
    const name = (element) => (element.getAttribute('aria-label')
        || (element.getAttribute('aria-labelledby') || '').split(' ').map((id) => document.getElementById(id)?.textContent || '').join(' ').trim()
        || [...(element.labels || [])].map((label) => label.textContent).join(' ').trim()
        || (element.matches('a, button, summary') ? element.textContent.trim() : ''));
    const visible = (element) => element.checkVisibility() && element.type !== 'hidden';
    for (const element of document.querySelectorAll('a, button, input, select, textarea, summary')) {
        if (visible(element) && !name(element)) lacks.push('no name: ' + element.outerHTML.slice(0, 120));
    }
    if (!document.documentElement.lang) lacks.push('no language');
    if (!document.title.trim()) lacks.push('no title');
    if (document.querySelectorAll('main').length !== 1) lacks.push('not one main');
    if (document.querySelectorAll('h1').length !== 1) lacks.push('not one h1');
    const labels = [...document.querySelectorAll('nav')].map(name);
    if (labels.some((label) => !label) || new Set(labels).size !== labels.length) lacks.push('landmarks: ' + labels);
    const ids = [...document.querySelectorAll('[id]')].map((element) => element.id);
    for (const id of ids.filter((id, at) => ids.indexOf(id) !== at)) lacks.push('twice: #' + id);
    for (const th of document.querySelectorAll('th:not(.select)')) if (!th.scope) lacks.push('th without scope');
    for (const element of document.querySelectorAll('[tabindex]')) if (element.tabIndex > 0) lacks.push('tabindex above 0');
    for (const svg of document.querySelectorAll('svg')) {
        if (!svg.closest('[aria-hidden=true]') && svg.getAttribute('role') !== 'img') lacks.push('svg: ' + svg.outerHTML.slice(0, 80));
    }

    // Contrast of text and what is behind it, as WCAG 2.2 AA has it.
    const context = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
    const blend = (colors) => {
        context.clearRect(0, 0, 1, 1);
        for (const color of colors) { context.fillStyle = color; context.fillRect(0, 0, 1, 1); }
        return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const luminance = (rgb) => rgb.map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
        .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const seen = new Set();
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (!walker.currentNode.textContent.trim() || seen.has(element) || !element.checkVisibility({ opacityProperty: true })) continue;
        if (element.closest('.hidden, .skip, :disabled, option, datalist, script')) continue;
        seen.add(element);
        const behind = [];
        for (let at = element; at; at = at.parentElement) behind.unshift(getComputedStyle(at).backgroundColor);
        const style = getComputedStyle(element);
        const [a, b] = [luminance(blend([...behind, style.color])), luminance(blend(behind))].sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
        if (ratio < (large ? 3 : 4.5)) lacks.push(`contrast ${ratio.toFixed(2)}: ${element.className} ${element.textContent.trim().slice(0, 30)}`);
    }
    return lacks;
";

async fn lacks_nothing(look: Look, name: &str) {
    let Some(chrome) = Chrome::start(look).await else { return };
    let site = Site::start().await;
    site.park(1..=3, "order.placed", r#"{"order":1,"gift":true,"none":null,"name":"Ada"}"#).await;
    chrome.go(&format!("{}/login", site.url)).await;
    chrome.find("#name").await;
    chrome.picture(&format!("login-{name}")).await;
    assert_eq!(chrome.ask(LACKS).await, json!([]), "the log-in");
    site.log_in(&chrome).await;
    for path in PAGES {
        chrome.go(&format!("{}{path}", site.url)).await;
        chrome.find("h1").await;
        assert_eq!(chrome.ask(LACKS).await, json!([]), "{path}");
        let wide = chrome.ask("return document.documentElement.scrollWidth - innerWidth").await;
        assert!(wide.as_i64().unwrap() <= 0, "{path} is {wide} pixels too wide");
        let page = if path.is_empty() {
            "overview".to_owned()
        } else {
            path[1..].replace(|c: char| !c.is_alphanumeric(), "-")
        };
        chrome.picture(&format!("{page}-{name}")).await;
    }
    chrome.end().await;
}

#[tokio::test]
async fn light_pages_lack_nothing() {
    lacks_nothing(Look::Desktop, "light").await;
}

#[tokio::test]
async fn dark_pages_lack_nothing() {
    lacks_nothing(Look::Dark, "dark").await;
}

#[tokio::test]
async fn pages_on_a_phone_lack_nothing() {
    lacks_nothing(Look::Phone, "phone").await;
}
