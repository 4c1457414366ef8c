"""What callers are told who may not do what they ask for: codes, English, Chinese, as in `messages.py`."""

# ruff: noqa: E501  # a row of the table is a line

OF_ACCESS = (
    ("needs_key", "An API key is needed here: send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'. Whoever runs this service makes one with 'python cli.py keys create'.", "这里需要 API 密钥：请以 'Authorization: Bearer 密钥' 或 'X-API-Key: 密钥' 发送。密钥由运行本服务的人用 'python cli.py keys create' 创建。"),
    ("unknown_key", "This API key is not known here.", "没有这个 API 密钥。"),
    ("revoked_key", "The API key {name} is revoked.", "API 密钥 {name} 已被吊销。"),
    ("expired_key", "The API key {name} has expired.", "API 密钥 {name} 已过期。"),
    ("missing_scope", "This needs the scope {scope}; the API key {name} has {scopes}.", "这需要权限 {scope}；API 密钥 {name} 只有 {scopes}。"),
    ("no_key_yet", "There is no API key yet, so only this machine is answered, and {address} is another. Whoever runs this service makes a key with 'python cli.py keys create --name NAME --scope search', or names the networks that need none in OPEN_TO.", "还没有任何 API 密钥，所以只应答本机，而 {address} 不是本机。运行本服务的人可以用 'python cli.py keys create --name 名称 --scope search' 创建密钥，或在 OPEN_TO 中写明无需密钥的网段。"),
    ("other_host", "Without an API key this service is called by its address, as localhost or by a name in HOST_NAMES, and not as '{host}'.", "不带 API 密钥时，须用本服务的地址、localhost 或 HOST_NAMES 中写明的名称访问，不能用 '{host}'。"),
    ("other_site", "A page of '{origin}' asks without an API key, and CORS_ALLOW_ORIGINS does not name it.", "来自 '{origin}' 的网页没有带 API 密钥，而 CORS_ALLOW_ORIGINS 中没有它。"),
    ("page_without_key", "A web page changes API keys only with one of its own, of the scope admin.", "网页要更改 API 密钥，必须自己带有具备 admin 权限的密钥。"),
    ("rate_limited", "The {client} has reached its limit of {limit} {what} ({kind}) in {window} s; try again in {seconds} s.", "客户端 {client} 已达到上限：{window} 秒内 {limit} 次{what}（{kind}）；请在 {seconds} 秒后再试。"),
    ("too_many_at_once", "The {client} has {count} {what} under way already; try again when one has ended.", "客户端 {client} 已有 {count} 个{what}正在进行；请等其中一个结束后再试。"),
    ("no_key", "There is no API key '{name}'.", "没有名为 '{name}' 的 API 密钥。"),
    ("name_taken", "another API key has the name '{name}'; revoke that one, or use another name", "另一个 API 密钥已使用名称 '{name}'；请先吊销它，或换一个名称"),
    ("admin_of_shop", "has admin, which is of the whole service, and not of one shop", "含有 admin，而它属于整个服务，不属于某一家店"),
    ("too_many_keys", "is one too many: there are {limit} API keys; revoke some", "太多了：已有 {limit} 个 API 密钥；请先吊销一些"),
    ("unnamed_server", "names {server}, and no setting does; ENDPOINT_SERVERS may", "指向 {server}，而没有任何设置写明它；可以写进 ENDPOINT_SERVERS"),
    ("wrong_limits", "must be limits as search=50/second, write=20/10 seconds, generate=100/day: of search, write, admin or generate, each in a second, minute, hour or day, or several", "必须是这样的限额：search=50/second, write=20/10 seconds, generate=100/day；种类为 search、write、admin 或 generate，时间为 second、minute、hour、day 或其若干倍"),
    ("wrong_moment", "must be a moment within the next 50 years", "必须是今后 50 年内的时刻"),
    ("wrong_moment", "is '{text}'; write a date, as 2027-01-01, or days, as 90d", "是 '{text}'；请写日期，如 2027-01-01，或天数，如 90d"),
)  # fmt: skip
# Of `{what}` and `{kind}` above.
WORDS = {"requests": "请求", "drawings": "绘图", "imports": "导入", "uploads": "上传", "streams": "持续应答", "search": "查询", "write": "写入", "admin": "管理", "generate": "生成"}  # fmt: skip
