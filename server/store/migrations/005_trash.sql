-- The trash in its order, without a look at all that does not lie in it.
CREATE INDEX images_trash ON images (number) WHERE deleted_us IS NOT NULL;
