"""Which transport the settings choose."""

from tuwen.errors import ConfigurationError
from tuwen.messaging.in_process import InProcessQueue
from tuwen.messaging.kafka import KafkaConsumer, KafkaSender
from tuwen.messaging.transport import MessageConsumer, MessageSender
from tuwen.settings import Settings


def new_sender(settings: Settings) -> MessageSender:
    """An InProcessQueue, the embedded default, has its consumers itself."""
    if settings.kafka_bootstrap_servers:
        return KafkaSender(settings)
    return InProcessQueue([settings.kafka_topic, settings.generation_topic])


def new_consumer(settings: Settings, topic: str, group: str) -> MessageConsumer:
    """For a process of its own, which only a transport with a server reaches. Raises ConfigurationError without one."""
    if not settings.kafka_bootstrap_servers:
        raise ConfigurationError("KAFKA_BOOTSTRAP_SERVERS is empty: then the API does this work itself.")
    return KafkaConsumer(settings, topic, group)
