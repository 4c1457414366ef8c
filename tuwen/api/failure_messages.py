"""What callers are told of a failure of ours, by the last part of a problem's type, in English and Chinese.

Instead of the error's own sentence, in which hosts, paths, users and versions may stand: that is for the log, which has
it under the request's id, and for `/health`.
"""

# ruff: noqa: E501  # a row of the table is a line

TOLD = {
    "database-busy": ("The database is busy with other changes; try again.", "数据库正忙于其他修改；请重试。"),
    "database-full": ("The database has no room for more.", "数据库的磁盘已满。"),
    "database-unavailable": ("The database does not answer; try again shortly.", "数据库没有应答；请稍后重试。"),
    "database-unusable": ("The database can't be used as it stands.", "数据库目前无法使用。"),
    "dependency-unavailable": ("Something that the service stands on is not available; try again shortly.", "服务所依赖的部分不可用；请稍后重试。"),
    "encoding-failed": ("The model can't encode this.", "模型无法编码这个内容。"),
    "image-store-unavailable": ("The picture store does not answer; try again shortly.", "图片存储没有应答；请稍后重试。"),
    "index-changed": ("Another index has just taken over; try again.", "索引刚刚更换；请重试。"),
    "internal-error": ("Something went wrong here; the service's log says what.", "服务内部出错；详情见服务的日志。"),
    "models-unavailable": ("The models don't answer; try again shortly.", "模型没有应答；请稍后重试。"),
    "vector-db-unavailable": ("The vector database does not answer; try again shortly.", "向量数据库没有应答；请稍后重试。"),
    "vectors-rejected": ("The vector database refused the request.", "向量数据库拒绝了请求。"),
}  # fmt: skip
OF_FAILURES = tuple((slug.replace("-", "_"), *sentences) for slug, sentences in TOLD.items())


def told_of(slug: str) -> str:
    english, _ = TOLD.get(slug, TOLD["internal-error"])
    return english
