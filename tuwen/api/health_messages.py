"""What `/health` says of parts in trouble, as `messages.py` has it of errors: code, English, Chinese."""

# ruff: noqa: E501  # a row of the table is a line

OF_HEALTH = (
    ("silent", "It has not answered for {seconds} s.", "已有 {seconds} 秒没有应答。"),
    ("unknown", "Not known while the database does not answer.", "数据库没有应答，无从得知。"),
    ("disk_full", "{mb} MB are free in {folder}: less than the {limit} MB of DISK_MIN_FREE_MB.", "{folder} 只剩 {mb} MB，低于 DISK_MIN_FREE_MB 的 {limit} MB。"),
    ("nobody_indexes", "No process that indexes was seen lately: does worker.py run?", "最近没有见到负责索引的进程：worker.py 在运行吗？"),
    ("nobody_draws", "No process that draws was seen lately: does tuwen.generation.worker run?", "最近没有见到负责绘图的进程：tuwen.generation.worker 在运行吗？"),
    ("hung", "{loop} in {process} has been due for {late} s.", "{process} 中的 {loop} 已逾期 {late} 秒没有动静。"),
    ("silent", "The model has not answered for {seconds} s.", "模型已有 {seconds} 秒没有应答。"),
    ("silent", "Milvus does not answer (MILVUS_URI): {reason}", "Milvus 没有应答（MILVUS_URI）：{reason}"),
    ("silent", "Kafka does not answer (KAFKA_BOOTSTRAP_SERVERS): {reason}", "Kafka 没有应答（KAFKA_BOOTSTRAP_SERVERS）：{reason}"),
    ("silent", "The image store does not answer (IMAGE_STORE_URL): {reason}", "图片存储没有应答（IMAGE_STORE_URL）：{reason}"),
    ("silent", "{setting}: the endpoint {url} has not answered within {seconds} s (ENDPOINT_TIMEOUT_S).", "{setting}：接口 {url} 在 {seconds} 秒内没有应答（ENDPOINT_TIMEOUT_S）。"),
    ("silent", "{setting}: the endpoint {url} did not answer a moment ago, and is tried again within seconds.", "{setting}：接口 {url} 刚才没有应答，几秒内会再次尝试。"),
    ("silent", "{setting}: the endpoint {url} can't be reached: {reason}.", "{setting}：无法连接接口 {url}：{reason}。"),
    ("silent", "{setting}: the endpoint {url} is in trouble: {reason}.", "{setting}：接口 {url} 出了问题：{reason}。"),
    ("folder_gone", "The folder {folder} is gone (IMAGE_STORE_URL).", "文件夹 {folder} 不见了（IMAGE_STORE_URL）。"),
)  # fmt: skip
