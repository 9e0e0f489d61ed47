//! Every text of the pages, in each language side by side. A text that lacks a language does not compile.

macro_rules! texts {
    ($($name:ident: $english:literal | $chinese:literal;)+) => {
        /// The texts of the pages in one language.
        #[derive(Debug)]
        pub(crate) struct Text {
            $(pub(crate) $name: &'static str,)+
        }

        pub(super) static ENGLISH: Text = Text { $($name: $english,)+ };
        pub(super) static CHINESE: Text = Text { $($name: $chinese,)+ };
    };
}

texts! {
    // Units and frames
    seconds: "s" | "秒";
    minutes: "m" | "分钟";
    hours: "h" | "小时";
    days: "d" | "天";
    ago: "{} ago" | "{}前";
    ahead: "in {}" | "{}后";
    skip_to_content: "Skip to content" | "跳到正文";
    navigation: "Navigation" | "导航";
    menu: "Menu" | "菜单";
    production: "Production" | "生产环境";
    production_note: "What you do here affects live messages." | "此处的操作会影响线上消息。";
    log_in: "Log in" | "登录";
    log_out: "Log out" | "退出登录";
    logged_in_as: "Logged in as" | "当前用户";
    read_only: "read only" | "只读";
    theme: "Colors" | "外观";
    theme_system: "System" | "跟随系统";
    theme_light: "Light" | "浅色";
    theme_dark: "Dark" | "深色";
    language: "Language" | "语言";
    shortcuts: "Keyboard shortcuts" | "键盘快捷键";
    close: "Close" | "关闭";
    apply: "Apply" | "应用";

    // Sections
    overview: "Overview" | "概览";
    messages: "Messages" | "消息";
    operations: "Operations" | "运维";
    published: "Published" | "已发布";
    received: "Received" | "已接收";
    delayed: "Delayed" | "延迟";
    parked: "Parked" | "待处理";
    subscriptions: "Subscriptions" | "订阅";
    audit: "Audit" | "审计";
    search: "Search" | "搜索";
    search_hint: "Id or text" | "ID 或文本";
    failures: "Failures" | "失败归类";
    story: "Story" | "全程";

    // Leads below the titles of sections
    overview_lead: "What waits, what fails, and what is up." | "等待、失败与运行状况。";
    published_lead: "The outbox: what this service sends." | "发件箱：本服务发送的消息。";
    received_lead: "The inbox: what this service handles." | "收件箱：本服务处理的消息。";
    delayed_lead: "Published, to be sent later." | "已发布，稍后发送。";
    parked_lead: "Failed for good. They wait for you: fix the cause, then run them again." | "已最终失败，等待处理：先排除原因，再重新执行。";
    failures_lead: "Parked messages by what their errors are about, with numbers and ids taken out." | "按错误内容归类的待处理消息，已去除数字与 ID。";
    first: "First" | "最早";
    last: "Last" | "最近";
    show_messages: "Show messages" | "查看消息";
    sample: "Newest" | "最新一条";
    story_lead: "Everything with the correlation id" | "具有以下关联 ID 的全部消息：";
    story_cut: "More messages were stored in the hour after its beginning than are looked at: some may be missing." | "开始后一小时内存储的消息过多，可能有遗漏。";
    subscriptions_lead: "The groups of this process and what they subscribe to." | "本进程的消费组及其订阅。";
    audit_lead: "Who did what to which messages." | "谁对哪些消息做了什么。";

    // States
    all: "All" | "全部";
    scheduled: "Scheduled" | "待执行";
    retrying: "Retrying" | "重试中";
    failed: "Failed" | "失败";
    succeeded: "Succeeded" | "成功";
    cancelled: "Cancelled" | "已取消";
    running: "Running" | "执行中";
    other: "Other" | "其他";
    status: "Status" | "状态";
    reason: "Reason" | "原因";
    reason_exhausted: "attempts used up" | "重试次数用尽";
    reason_permanent: "permanent error" | "永久性错误";
    reason_missing_headers: "no id or topic" | "缺少 ID 或主题";
    reason_undecodable: "payload cannot be decoded" | "无法解析消息体";
    reason_no_subscriber: "no handler for the topic" | "没有处理该主题的处理器";
    reason_unrouted: "no queue for the topic" | "没有接收该主题的队列";
    reason_cancelled: "cancelled" | "已取消";
    reason_corrupt: "row cannot be read" | "数据行无法读取";
    reason_id_conflict: "another message has this id" | "消息 ID 冲突";
    reason_callback: "reply topic not allowed" | "回复主题不被允许";
    reason_name_mismatch: "topic differs from the routing key" | "主题与路由键不一致";
    reason_crashed: "process died while handling" | "处理时进程崩溃";

    // Columns and fields
    topic: "Topic" | "主题";
    group: "Group" | "消费组";
    message_id: "Message id" | "消息 ID";
    row_id: "Row" | "行";
    attempts: "Attempts" | "尝试次数";
    reruns: "Re-runs" | "重新执行次数";
    added: "Stored" | "存储时间";
    due: "Due" | "到期时间";
    expires: "Deleted" | "删除时间";
    node: "Node" | "节点";
    last_error: "Last error" | "最近错误";
    version: "Version" | "版本";
    side: "Side" | "方向";
    correlation: "Correlation" | "关联 ID";
    kind: "Type" | "类型";
    count: "Count" | "数量";
    when: "When" | "时间";
    who: "Who" | "操作人";
    what: "What" | "操作";

    // Filters
    filter: "Filter" | "筛选";
    clear: "Clear" | "清除";
    any: "any" | "不限";
    since: "Stored since" | "存储起始";
    until: "until" | "截止";
    time_hint: "15m, 2h, 7d or 2026-01-31T12:00" | "15m、2h、7d 或 2026-01-31T12:00";
    error_contains: "Error contains" | "错误包含";
    older: "Older" | "更早";
    newest: "Newest" | "最新";
    nothing_matches: "No message matches this filter." | "没有符合筛选条件的消息。";
    nothing_parked: "No message waits for you." | "没有等待处理的消息。";
    no_messages_yet: "No message is stored yet." | "尚未存储任何消息。";

    // Overview
    waiting_to_send: "Waiting to be sent" | "待发送";
    waiting_to_handle: "Waiting to be handled" | "待处理执行";
    waiting_here: "now" | "当前";
    groups: "Groups" | "消费组";
    components: "Components" | "组件";
    up: "up" | "正常";
    down: "down" | "故障";
    live: "live" | "实时";
    paused: "paused" | "已暂停";
    live_paused: "Updates stop while this tab is hidden." | "标签页隐藏时停止更新。";
    no_groups: "No group has stored a message." | "还没有消费组存储过消息。";
    counts_unknown: "The counts are not known at the moment." | "当前无法获得计数。";
    counts_capped: "More than 10,000 of a kind: numbers with + are lower bounds." | "某类超过 10,000 条：带 + 的数字为下限。";
    history: "Last minutes" | "最近几分钟";
    chart_waiting: "Waiting and failed messages over the last minutes" | "最近几分钟的等待与失败消息";
    concurrency: "Running" | "执行中";
    queued: "Queued" | "排队";
    circuit: "Circuit" | "熔断器";
    circuit_open: "open" | "打开";
    circuit_closed: "closed" | "关闭";
    circuit_half_open: "testing" | "试探";
    no_bus: "This dashboard runs beside the services and sees only their storage. Give it the bus of a service to see its groups." | "此仪表盘独立于服务运行，只能看到存储。将服务的总线交给它即可查看其消费组。";

    // One message
    payload: "Payload" | "消息体";
    headers: "Headers" | "消息头";
    timeline: "Attempts" | "尝试记录";
    no_payload: "No payload: the message carries null." | "没有消息体（null）。";
    payload_hidden: "This payload is masked. You need the right to unmask it." | "消息体已脱敏，需要查看权限。";
    payload_masked: "Some values are masked. You need the right to unmask them before you can edit." | "部分内容已脱敏。编辑前需要查看权限。";
    payload_binary: "Not text. The first bytes as hexadecimal:" | "非文本内容，以下为前若干字节的十六进制：";
    payload_cut: "Only the beginning is shown." | "仅显示开头部分。";
    download: "Download" | "下载";
    copy: "Copy" | "复制";
    copied: "Copied" | "已复制";
    attempt: "Attempt" | "第几次尝试";
    next_attempt: "next attempt" | "下次尝试";
    no_next_attempt: "gave up" | "不再重试";
    no_attempts: "No attempt has failed." | "没有失败的尝试。";
    same_message: "This message in other groups" | "该消息在其他消费组";
    null_value: "null" | "空";

    // Acts
    rerun: "Re-run" | "重新执行";
    edit_and_rerun: "Edit and re-run" | "编辑并重新执行";
    delete: "Delete" | "删除";
    cancel: "Cancel" | "取消发送";
    send_now: "Send now" | "立即发送";
    back: "Back" | "返回";
    selected: "selected" | "已选择";
    select_all: "Select all on this page" | "选择本页全部";
    select_row: "Select message" | "选择消息";
    or_all_matching: "All that match the filter" | "所有符合筛选条件的消息";
    preview_title: "Check before you go on" | "执行前请确认";
    preview_rerun: "These messages are run again. Their retries start anew." | "将重新执行以下消息，重试从头开始。";
    preview_delete: "These messages are deleted with their attempts. This cannot be undone." | "将删除以下消息及其尝试记录，无法撤销。";
    preview_cancel: "These messages will not be sent. They are kept as cancelled." | "以下消息将不会发送，并以已取消状态保留。";
    preview_skips: "Messages that are being processed at that moment, or that somebody else has acted on, are skipped." | "正在处理或已被他人操作的消息会被跳过。";
    preview_nothing: "Nothing is selected, or it is gone already." | "未选择任何消息，或消息已不存在。";
    and_more: "and more of the same kind" | "以及更多同类消息";
    do_rerun: "Re-run them" | "重新执行";
    do_delete: "Delete them" | "删除";
    do_cancel: "Cancel them" | "取消发送";
    done_rerun: "re-run" | "已重新执行";
    done_delete: "deleted" | "已删除";
    done_cancel: "cancelled" | "已取消";
    done_edit: "The message was edited and is run again." | "消息已编辑并重新执行。";
    done_none: "Nothing was changed: the messages are being processed, or somebody else has acted on them." | "未做任何更改：消息正在处理或已被他人操作。";
    edit_title: "Edit payload" | "编辑消息体";
    edit_lead: "The text is stored exactly as you write it: numbers keep all their digits. Id and headers stay." | "文本将按原样保存，数字保留全部位数。ID 与消息头不变。";
    edit_save: "Save and re-run" | "保存并重新执行";
    edit_not_json: "This is not valid JSON, but the payload was:" | "不是有效的 JSON，而原消息体是：";

    // Log-in
    login_title: "Log in to the dashboard" | "登录仪表盘";
    name: "Name" | "名称";
    token: "Access token" | "访问令牌";
    login_failed: "Name or access token is wrong." | "名称或访问令牌错误。";
    login_wait: "Too many failures. Try again in a minute." | "失败次数过多，请一分钟后再试。";
    logged_out: "You are logged out." | "您已退出登录。";

    // Problems
    problem: "This did not work" | "操作未成功";
    to_overview: "To the overview" | "返回概览";
    result_of_search: "Messages with" | "包含以下内容的消息";
    no_result: "No message has this id or text." | "没有包含此 ID 或文本的消息。";
    looked_at: "Only the newest {} messages were looked at." | "仅检查了最新的 {} 条消息。";

    // Audit
    audit_empty: "Nobody has acted yet." | "还没有人操作过。";
    former_payload: "Payload before" | "编辑前的消息体";

    // Keyboard
    key_search: "Search" | "搜索";
    key_move: "Next and previous row" | "下一行与上一行";
    key_open: "Open the message" | "打开消息";
    key_select: "Select the row" | "选择该行";
    key_help: "This help" | "显示本帮助";
    key_go: "Overview, published, received, parked" | "概览、已发布、已接收、待处理";
}
