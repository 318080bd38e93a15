"""What schemathesis does not know of itself: a text of several lines goes as it is."""

import schemathesis

schemathesis.serializer.alias("application/x-ndjson", "text/plain")
