-- What somebody's pictures take is summed up before each new one: from the index alone.
CREATE INDEX images_usage ON images (owner, size_bytes);
