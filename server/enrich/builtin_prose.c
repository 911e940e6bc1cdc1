/* The built-in enricher in sentences. What a text says is a set of facts, in groups of which one picture has one each:
 * it is either night or noon. A sentence that says other facts than those already said of a group is never added, and
 * what it says holds for the sentences after it. */
#include "enrich/builtin.h"

#include <stdlib.h>
#include <string.h>

#define FACT(n) (UINT64_C(1) << (n))

enum { /* facts */
       /* time */
       DAWN = 0,
       MORNING,
       NOON,
       AFTERNOON,
       EVENING,
       NIGHT,
       /* weather */
       CLEAR,
       CLOUD,
       RAIN,
       SNOW,
       FOG,
       STORM,
       /* place */
       OUTDOORS,
       INDOORS,
       UNDERWATER,
       SPACE,
       STUDIO,
       /* medium */
       PHOTO,
       PAINT,
       WATERCOLOUR,
       DRAWN,
       RENDER,
       GRAPHIC,
       /* colour */
       MONO,
       NAMED,
       WARM,
       COOL,
       MUTED,
       VIVID,
       /* shot */
       CLOSE,
       MIDDLE,
       WIDE,
       ABOVE,
       BELOW,
       /* light */
       HARD,
       SOFT,
       BACKLIT,
       FIRE,
       SIGNS,
       /* side */
       LEFT,
       RIGHT,
       CENTRE,
       /* mood */
       CALM,
       TENSE,
       LIVELY,
       /* room */
       EMPTY,
       BUSY,
       /* what it is of: no group, a picture may have them all */
       PERSON,
       FUR,
       FEATHER,
       SCALE,
       VEHICLE,
       BUILDING,
       CITY,
       FOOD,
       NATURE,
       WATER,
       MACHINE,
       N_FACTS
};

#define F_DAY (FACT(MORNING) | FACT(NOON) | FACT(AFTERNOON))
#define F_NO_AIR (FACT(UNDERWATER) | FACT(SPACE))
#define F_FLAT (FACT(GRAPHIC) | FACT(DRAWN))
#define F_GROUP(first, last) ((FACT((last) + 1) - 1) & ~(FACT(first) - 1))

static const uint64_t groups[] = {
    F_GROUP(DAWN, NIGHT),  F_GROUP(CLEAR, STORM), F_GROUP(OUTDOORS, STUDIO), F_GROUP(PHOTO, GRAPHIC),
    F_GROUP(MONO, VIVID),  F_GROUP(CLOSE, BELOW), F_GROUP(HARD, SIGNS),      F_GROUP(LEFT, CENTRE),
    F_GROUP(CALM, LIVELY), F_GROUP(EMPTY, BUSY),
};
#define GROUP_COLOUR groups[4]
#define GROUP_LIGHT groups[6]

/* Words by which a prompt states facts; a plural's s is understood. */
static const struct {
    const char *words; /* separated by bars */
    uint64_t facts;
} vocabulary[] = {
    { "dawn|sunrise|daybreak|first light", FACT(DAWN) },
    { "morning", FACT(MORNING) | FACT(DAWN) },
    { "noon|midday", FACT(NOON) },
    { "afternoon", FACT(AFTERNOON) },
    { "day|daylight|daytime", F_DAY },
    { "evening|sunset|dusk|twilight|golden hour|blue hour", FACT(EVENING) },
    { "night|nighttime|midnight|moonlight|moonlit|nocturnal|starry", FACT(NIGHT) },
    { "sunny|sunlit|sunlight|clear sky|cloudless|bright sun", FACT(CLEAR) | F_DAY | FACT(EVENING) | FACT(DAWN) },
    { "overcast|cloudy|cloud|grey sky|gray sky", FACT(CLOUD) },
    { "rain|rainy|raining|drizzle|puddle|wet", FACT(RAIN) },
    { "snow|snowy|snowing|snowfall|blizzard|winter|ice|icy|frozen", FACT(SNOW) },
    { "fog|foggy|mist|misty|haze|hazy|smoke|smoky", FACT(FOG) },
    { "storm|stormy|thunder|lightning|hurricane|tornado|gale", FACT(STORM) | FACT(TENSE) },
    { "street|city|cityscape|skyline|town|village|market|alley|bridge|harbour|harbor|rooftop|downtown",
      FACT(OUTDOORS) | FACT(BUILDING) | FACT(CITY) },
    { "house|building|castle|tower|skyscraper|temple|church|cathedral|barn|lighthouse|ruin|facade|palace|cabin|hut|"
      "bakery|shop|store|station",
      FACT(BUILDING) },
    { "forest|mountain|valley|meadow|field|garden|park|jungle|desert|landscape|hill|cliff|canyon|volcano|tree|wood|"
      "prairie|savanna",
      FACT(OUTDOORS) | FACT(NATURE) },
    { "beach|coast|shore|island|lake|river|waterfall|sea|ocean|pond", FACT(OUTDOORS) | FACT(NATURE) | FACT(WATER) },
    { "road|path|outdoor|outdoors|sky|stadium|farm|vineyard", FACT(OUTDOORS) },
    { "room|kitchen|bedroom|bathroom|office|library|indoors|interior|inside|cafe|restaurant|bar|workshop|laboratory|"
      "museum|hallway|"
      "corridor|attic|basement|cellar|classroom|gallery|theatre|theater|cockpit|table|desk|sofa|cave|windowsill|window",
      FACT(INDOORS) },
    { "underwater|deep sea|coral|reef|submarine|seabed|ocean floor", FACT(UNDERWATER) },
    { "outer space|in space|orbit|galaxy|nebula|spaceship|spacecraft|space station|asteroid|astronaut|planet|moon "
      "surface",
      FACT(SPACE) },
    { "studio|seamless|plain background|white background|black background|isolated",
      FACT(STUDIO) | FACT(INDOORS) | FACT(EMPTY) },
    { "photo|photograph|photography|photographic|photorealistic|polaroid|dslr|35mm|50mm|85mm|macro|film "
      "still|lens|bokeh",
      FACT(PHOTO) },
    { "painting|oil|acrylic|gouache|fresco|impressionist|canvas|painted|mural", FACT(PAINT) },
    { "watercolor|watercolour|ink wash", FACT(WATERCOLOUR) },
    { "drawing|sketch|pencil|charcoal|ink|line "
      "art|comic|manga|anime|cartoon|illustration|engraving|etching|woodcut|crayon|ghibli",
      FACT(DRAWN) },
    { "3d|render|rendering|cgi|claymation|blender|voxel|isometric|low poly", FACT(RENDER) },
    { "logo|icon|pixel art|vector|poster|sticker|pattern|typography|diagram|infographic|flat "
      "design|emblem|sprite|wallpaper pattern",
      FACT(GRAPHIC) },
    { "black and white|monochrome|grayscale|greyscale|sepia", FACT(MONO) },
    { "red|orange|yellow|green|blue|purple|violet|pink|magenta|cyan|teal|turquoise|golden|gold|silver|brown|white|"
      "black|grey|gray|"
      "crimson|scarlet|emerald|amber|beige|lavender|indigo|copper|bronze",
      FACT(NAMED) },
    { "warm|autumn|earthy", FACT(WARM) },
    { "cool|cold", FACT(COOL) },
    { "muted|pale|pastel|desaturated|faded", FACT(MUTED) },
    { "vivid|vibrant|colorful|colourful|saturated|rainbow|neon", FACT(VIVID) },
    { "close up|closeup|portrait|headshot|macro|detail of", FACT(CLOSE) },
    { "half length|waist up|medium shot", FACT(MIDDLE) },
    { "wide|panorama|panoramic|vista|landscape|distant|far away|skyline|cityscape|wide angle", FACT(WIDE) },
    { "from above|aerial|top down|bird s eye|birds eye|drone|overhead|flat lay|flatlay|isometric", FACT(ABOVE) },
    { "from below|low angle|worm s eye|worms eye", FACT(BELOW) },
    { "hard light|harsh light|spotlight|high contrast|chiaroscuro|dramatic light|dramatic lighting", FACT(HARD) },
    { "soft light|diffused|soft lighting|window light|gentle light", FACT(SOFT) },
    { "backlit|backlight|silhouette|rim light|against the light", FACT(BACKLIT) },
    { "candle|candlelight|candlelit|fire|campfire|fireplace|torch|lantern|firelight|bonfire|flame", FACT(FIRE) },
    { "neon|neon sign|neon light|cyberpunk", FACT(SIGNS) },
    { "on the left|left side|left third|on the far left", FACT(LEFT) },
    { "on the right|right side|right third|on the far right", FACT(RIGHT) },
    { "centered|centred|in the center|in the centre|in the middle|symmetrical|symmetry|symmetric|mandala",
      FACT(CENTRE) },
    { "calm|peaceful|quiet|serene|tranquil|sleeping|resting|still life|meditating", FACT(CALM) },
    { "war|battle|fight|fighting|danger|scary|horror|ominous|sinister|tense|explosion|exploding|chase|ghost|crying|"
      "angry|sad",
      FACT(TENSE) },
    { "party|festival|concert|dancing|dance|running|racing|race|jumping|playing|laughing|carnival|celebration|happy|"
      "joyful",
      FACT(LIVELY) },
    { "minimal|minimalist|minimalistic|empty|sparse|negative space|alone|lonely|solitary", FACT(EMPTY) },
    { "crowd|crowded|busy|market|cluttered|bustling|packed|party|festival", FACT(BUSY) },
    { "man|men|woman|women|person|people|girl|boy|child|children|lady|guy|king|queen|soldier|knight|wizard|witch|"
      "dancer|musician|chef|"
      "fisherman|farmer|sailor|doctor|nurse|samurai|pirate|monk|bride|father|mother|grandmother|grandfather|friend|"
      "couple|worker|human|"
      "artist|teacher|student|warrior|princess|prince",
      FACT(PERSON) },
    { "cat|kitten|dog|puppy|fox|wolf|wolves|bear|lion|tiger|rabbit|horse|cow|sheep|deer|mouse|mice|squirrel|panda|"
      "monkey|otter|raccoon|"
      "hedgehog|goat|leopard|koala|bunny|hamster|lynx",
      FACT(FUR) },
    { "bird|owl|eagle|raven|crow|parrot|hen|chicken|rooster|swan|duck|penguin|peacock|hummingbird|heron|sparrow|falcon|"
      "flamingo",
      FACT(FEATHER) },
    { "fish|dragon|snake|lizard|koi|shark|crocodile|iguana|dinosaur|salmon|chameleon", FACT(SCALE) },
    { "car|truck|motorcycle|motorbike|train|bus|tram|bicycle|bike|airplane|plane|helicopter|van|scooter|tractor|ship",
      FACT(VEHICLE) },
    { "bread|cake|pizza|soup|burger|fruit|apple|cheese|dessert|breakfast|dinner|food|pasta|sushi|pie|chocolate|ramen|"
      "salad|cookie|meal|"
      "pancake|croissant|strawberry|strawberries",
      FACT(FOOD) },
    { "robot|android|machine|engine|clockwork|mech|cyborg|clock|typewriter|camera", FACT(MACHINE) },
};

/* A sentence with choices in brackets, "[soft|pale]". It is used when all of needs, none of never, and nothing against
 * says holds. */
struct sentence {
    const char *text;
    uint64_t says, needs, never;
};

static const struct sentence light[] = {
    { "Afternoon sun comes in low from [the left|the right|one side], with [long, soft-edged|clearly drawn] shadows "
      "that show the shape of things.",
      FACT(AFTERNOON) | FACT(CLEAR) | FACT(OUTDOORS), 0, F_NO_AIR },
    { "Soft light from an overcast sky wraps everything evenly and keeps [every edge|the fine detail] easy to read.",
      FACT(CLOUD) | FACT(OUTDOORS) | FACT(SOFT) | F_DAY, 0, F_NO_AIR },
    { "The last sun of the evening [rakes across the scene|catches every edge] and draws long shadows.",
      FACT(EVENING) | FACT(CLEAR) | FACT(OUTDOORS) | FACT(WARM), 0, F_NO_AIR },
    { "The first light of dawn is thin and silvery, just enough to [shape the forms|lift the subject out of the dark].",
      FACT(DAWN) | FACT(OUTDOORS) | FACT(COOL), 0, F_NO_AIR | FACT(FOOD) },
    { "Moonlight [outlines the forms|silvers the edges] while the rest sinks into deep shadow.",
      FACT(NIGHT) | FACT(CLEAR) | FACT(OUTDOORS) | FACT(COOL), 0, F_NO_AIR | FACT(FOOD) },
    { "Pools of lamplight break up the dark, and their glow fades [softly|slowly] into the shadows.",
      FACT(NIGHT) | FACT(OUTDOORS), 0, F_NO_AIR | FACT(NATURE) | FACT(FOOD) },
    { "Coloured light from signs and windows spills over the ground and into the shadows.",
      FACT(NIGHT) | FACT(OUTDOORS) | FACT(SIGNS) | FACT(VIVID), FACT(CITY), F_NO_AIR },
    { "The glow of the signs tints skin, metal and glass, and leaves [deep|soft] shadows between them.",
      FACT(NIGHT) | FACT(SIGNS) | FACT(VIVID), FACT(SIGNS), F_NO_AIR },
    { "Window light falls in from one side, [soft on the near surfaces|gentle and clear], and the far corners stay in "
      "shadow.",
      FACT(INDOORS) | FACT(SOFT) | F_DAY, 0, F_NO_AIR },
    { "A single lamp lights the room, warm at its centre and falling off quickly into shadow.",
      FACT(INDOORS) | FACT(NIGHT) | FACT(EVENING) | FACT(WARM), FACT(INDOORS), F_NO_AIR | FACT(FIRE) },
    { "Shafts of light sink down from the surface and [break into shifting patterns|fade into the deep].", 0,
      FACT(UNDERWATER), 0 },
    { "Hard light from one side leaves the other in complete black, as it is where there is no air.", FACT(HARD),
      FACT(SPACE), 0 },
    { "The glow of the flames is warm on the nearest surfaces and gives way to darkness behind them.",
      FACT(FIRE) | FACT(WARM), FACT(FIRE), F_NO_AIR },
    { "A large, soft source close to the subject gives [gentle|slow] transitions from light to shadow.", FACT(SOFT), 0,
      F_NO_AIR | FACT(FIRE) | FACT(OUTDOORS) },
    { "Light from behind draws a fine, bright rim around the subject, with just enough fill to read the front.",
      FACT(BACKLIT), 0, F_NO_AIR | FACT(FIRE) },
    { "One clear key light models the forms, and the shadows stay [open|full of detail].", 0, 0,
      F_NO_AIR | FACT(FIRE) },
    { "The light comes from [high on the left|high on the right|the side], and each thing throws a shadow that tells "
      "how it is built.",
      0, 0, F_NO_AIR | FACT(FIRE) | FACT(CLOUD) | FACT(FOG) },
    { "Wet surfaces mirror the light and stretch it into [long streaks|soft ribbons].", 0, FACT(RAIN),
      FACT(INDOORS) | F_NO_AIR },
    { "The snow throws light back from below, so that even the shadows stay [soft|bright].", 0, FACT(SNOW),
      FACT(INDOORS) | F_NO_AIR },
    { "The haze scatters the light and lets the distance fade in [even|pale] layers.", 0, FACT(FOG), F_NO_AIR },
};

static const struct sentence material[] = {
    { "Skin keeps its natural texture, and the cloth has real weight and weave.", 0, FACT(PERSON),
      FACT(MACHINE) | FACT(SPACE) },
    { "Cloth folds where the body bends, and seams, buttons and worn edges tell of the person.", 0, FACT(PERSON),
      FACT(CLOSE) | FACT(SPACE) },
    { "The face is drawn with care: clear eyes, [fine lines|small asymmetries], nothing smoothed away.", 0,
      FACT(PERSON) | FACT(CLOSE), 0 },
    { "Single hairs of the coat catch the light, and the eyes hold a small, clear reflection.", 0, FACT(FUR), 0 },
    { "The coat is dense and slightly ruffled, and the whiskers and ears are drawn hair by hair.", 0, FACT(FUR),
      FACT(WIDE) },
    { "The posture of the animal is true to life, with its weight where it belongs.", 0, FACT(FUR), 0 },
    { "Every feather shows its fine barbs and a faint sheen.", 0, FACT(FEATHER), 0 },
    { "The scales overlap in fine rows, with a subtle sheen along their edges.", 0, FACT(SCALE), 0 },
    { "Paint, glass and metal each reflect the surroundings in their own way, with [fine dust in the seams|small signs "
      "of use].",
      0, FACT(VEHICLE), 0 },
    { "Reflections run along the bodywork and show what stands around it.", 0, FACT(VEHICLE), F_NO_AIR },
    { "The stone, wood and plaster of the walls show their age in [stains and cracks|worn edges].", 0, FACT(BUILDING),
      F_NO_AIR | FACT(GRAPHIC) },
    { "Walls, windows and roofs are told apart by how they take the light, and small details give the scale.", 0,
      FACT(BUILDING), F_NO_AIR | FACT(INDOORS) },
    { "The textures look fresh and close enough to taste, with a little shine where the surface is moist.", 0,
      FACT(FOOD), 0 },
    { "Crumbs, drops and a trace of steam show that it was made a moment ago.", 0, FACT(FOOD), F_FLAT },
    { "Rock, earth and leaves differ clearly in texture, and their layers lead the eye into the distance.", 0,
      FACT(NATURE), F_NO_AIR | FACT(CLOSE) | FACT(SNOW) },
    { "The foreground is crisp to the last blade and stone, and the distance softens step by step.", 0, FACT(NATURE),
      F_NO_AIR | FACT(CLOSE) | FACT(SNOW) },
    { "The water shows both what it reflects and what lies beneath its surface.", 0, FACT(WATER),
      F_NO_AIR | FACT(SNOW) },
    { "Seams, screws and joints are precise, and the metal carries [fine scratches|a soft, worn sheen].", 0,
      FACT(MACHINE), 0 },
    { "Surfaces look touchable, each with its own grain and sheen.", 0, 0, 0 },
    { "Edges are sharp where the eye should rest and softer everywhere else.", 0, 0, FACT(GRAPHIC) },
    { "Rough and smooth, matt and glossy surfaces lie side by side and set each other off.", 0, 0, 0 },
    { "Small, true details reward a closer look, and materials are told apart at a glance.", 0, 0, 0 },
};

static const struct sentence medium[] = {
    { "The brushwork stays visible, loose in the background and finer where the eye should rest.", 0, FACT(PAINT),
      FACT(WATERCOLOUR) },
    { "Thick and thin paint alternate, and the darks are [glazed and deep|warm and transparent].", 0, FACT(PAINT),
      FACT(WATERCOLOUR) },
    { "Pigment pools at the edges of each wash, and the paper shines through in the lights.", 0, FACT(WATERCOLOUR), 0 },
    { "Wet washes flow into each other in the distance, and dry, sharp strokes set the accents.", 0, FACT(WATERCOLOUR),
      0 },
    { "Confident lines vary in weight, and the shading follows the forms.", 0, FACT(DRAWN), 0 },
    { "Clear outlines and [flat, considered tones|few, well-placed shadows] keep it readable.", 0, FACT(DRAWN), 0 },
    { "Light and materials behave as they would in the real world, with soft contact shadows and clean edges.", 0,
      FACT(RENDER), 0 },
    { "Simple shapes, clean edges and even spacing keep it readable at any size.", 0, FACT(GRAPHIC), 0 },
    { "Few shapes, strong contrast and [a steady rhythm|generous margins] carry the design.", 0, FACT(GRAPHIC), 0 },
    { "It is shot at eye level with a [35|50] mm lens, focus on the subject and a natural fall-off behind it.",
      FACT(MIDDLE), FACT(PHOTO), F_NO_AIR | FACT(PAINT) },
    { "A short telephoto lens keeps the proportions true and melts the background into soft shapes.", FACT(CLOSE),
      FACT(PHOTO), F_NO_AIR },
};

static const struct sentence atmosphere[] = {
    { "The mood is quiet and attentive.", FACT(CALM), 0, FACT(BUSY) },
    { "Fine dust hangs in the air and makes the light visible.", FACT(INDOORS), FACT(INDOORS),
      F_NO_AIR | FACT(STUDIO) },
    { "A light breeze stirs whatever is loose.", FACT(OUTDOORS), FACT(OUTDOORS), F_NO_AIR | FACT(FOG) | FACT(STORM) },
    { "A thin haze separates near from far and gives the scene depth.", FACT(FOG) | FACT(OUTDOORS), FACT(OUTDOORS),
      F_NO_AIR },
    { "The air is clear, and even the farthest details stay crisp.", FACT(CLEAR), FACT(OUTDOORS),
      F_NO_AIR | FACT(CLOSE) },
    { "Small particles drift in the water and give it depth.", 0, FACT(UNDERWATER), 0 },
    { "Distant stars stay small and faint, which lends the subject its scale.", 0, FACT(SPACE), FACT(INDOORS) },
    { "The place looks lived in, with a few well-chosen things around.", 0, FACT(INDOORS),
      FACT(EMPTY) | FACT(STUDIO) | F_NO_AIR },
    { "The moment is caught at its height, with clear gestures and movement in every part.", 0, FACT(LIVELY), 0 },
    { "Something in the scene is about to happen, and everything in it seems to hold its breath.", FACT(TENSE),
      FACT(TENSE), 0 },
    { "The surroundings are only hinted at, enough to tell where this is.", 0, 0,
      FACT(EMPTY) | FACT(STUDIO) | F_NO_AIR | FACT(WIDE) },
};

static const struct sentence colour[] = {
    { "A restrained palette of two or three related tones holds the picture together.", FACT(MUTED), 0, FACT(MONO) },
    { "Muted earth tones dominate, with one small, brighter accent near the subject.", FACT(MUTED), 0, F_NO_AIR },
    { "Warm highlights stand against cool shadows.", FACT(WARM) | FACT(COOL), 0, FACT(MUTED) },
    { "Rich colours are kept apart by areas of calm, neutral tone.", FACT(VIVID), 0, 0 },
    { "A full range of greys runs from clean white to deep black.", 0, FACT(MONO), 0 },
};

/* For what nobody can tell the facts of: another language. */
static const struct sentence neutral[] = {
    { "One clear source of light models the forms, and the shadows stay [open|full of detail].", 0, 0, 0 },
    { "Surfaces look touchable, each with its own grain and sheen.", 0, 0, 0 },
    { "The composition is simple, with one clear centre of interest and depth behind it.", 0, 0, 0 },
};

static const struct sentence cinematic[] = {
    { "It is framed like a still from a film: a wide format, a clear foreground and a deep background.", 0, 0,
      FACT(GRAPHIC) | FACT(STUDIO) },
    { "Anamorphic framing, gentle lens flare and a shallow plane of focus give it the look of a film.", FACT(PHOTO), 0,
      F_FLAT },
    { "The light is low in key, the highlights are held back, and the colours are graded teal against amber.",
      FACT(NAMED), 0, FACT(NAMED) | FACT(MONO) | FACT(GRAPHIC) | FACT(CLEAR) | FACT(SNOW) },
    { "The camera stands low and slightly off the axis, which gives the subject weight against the space behind it.",
      FACT(BELOW), 0, FACT(GRAPHIC) | FACT(WIDE) },
    { "One strong source and a faint haze in the air give the scene depth and tension.", FACT(TENSE) | FACT(FOG), 0,
      F_NO_AIR | FACT(GRAPHIC) | FACT(STUDIO) },
    { "The scene looks caught between two moments of a story, as if the next cut were a second away.", 0, 0,
      FACT(GRAPHIC) },
    { "It has the staging of a film: [a motive for every light|light with a visible source], depth, and a single point "
      "of focus.",
      0, 0, 0 },
};

static const struct sentence asymmetrical[] = {
    { "The weight of the picture lies on one side, balanced by a small accent far on the other.", 0, 0, FACT(CENTRE) },
    { "Masses of unequal size are set against each other; nothing is mirrored, and yet the picture rests.", 0, 0,
      FACT(CENTRE) },
    { "The subject stands off the middle axis, and a diagonal leads from it to the opposite corner.", 0, 0,
      FACT(CENTRE) },
    { "One half is dense with detail and the other nearly bare.", 0, 0, FACT(CENTRE) | FACT(EMPTY) | FACT(BUSY) },
    { "Small differences between the two halves keep the picture from mirroring itself.", 0, 0, 0 },
};

static const struct sentence unique[] = {
    { "An unusual viewpoint makes the familiar look new: the camera is close to the ground and looks up.", FACT(BELOW),
      0, F_FLAT | F_NO_AIR },
    { "It is seen straight from above, so that shapes and shadows become a pattern.", FACT(ABOVE), 0, F_NO_AIR },
    { "The picture is built around one odd, true detail that only a second look finds.", 0, 0, 0 },
    { "It is seen through something in the foreground that stays blurred and frames the subject.", 0, 0,
      F_FLAT | FACT(ABOVE) | FACT(STUDIO) },
    { "A reflection repeats the subject in an unfamiliar shape.", 0, 0, F_FLAT | F_NO_AIR },
    { "An uncommon pairing of textures, [rough against smooth|matt against gloss], gives it a voice of its own.", 0, 0,
      0 },
};

static const struct sentence rule_of_thirds[] = {
    { "The subject stands on the left third of the frame, with open space to its right.", FACT(LEFT), 0, 0 },
    { "The subject stands on the right third of the frame, with open space to its left.", FACT(RIGHT), 0, 0 },
    { "The horizon lies on the upper third, and the subject meets it where the lines of thirds cross.", FACT(OUTDOORS),
      0, FACT(CLOSE) | FACT(ABOVE) | FACT(CENTRE) | F_NO_AIR | FACT(GRAPHIC) },
    { "The main lines follow the thirds of the frame, and the point of interest sits where two of them cross.", 0, 0,
      FACT(CENTRE) },
    { "The secondary lines fall on the thirds of the frame.", 0, 0, 0 },
};

static const struct sentence strong_negative_space[] = {
    { "Most of the frame is left empty, a [calm|plain], even surface around a small, precise subject.", FACT(EMPTY), 0,
      FACT(CLOSE) },
    { "A wide, empty area takes two thirds of the picture and gives the subject room to breathe.", FACT(EMPTY), 0,
      FACT(CLOSE) },
    { "The background is one quiet tone without detail, so that the outline of the subject does all the work.",
      FACT(EMPTY), 0, FACT(BUILDING) | FACT(NATURE) | FACT(INDOORS) },
    { "A great, empty stretch of sky stands over the subject.", FACT(EMPTY) | FACT(OUTDOORS), FACT(OUTDOORS),
      F_NO_AIR | FACT(CLOSE) | FACT(ABOVE) },
    { "Black emptiness surrounds the subject on all sides.", FACT(EMPTY), FACT(SPACE), FACT(NAMED) },
    { "One large, quiet area without detail gives the eye a place to rest.", 0, 0, 0 },
};

static const struct sentence production_photography[] = {
    { "It is photographed for production: a large softbox as key, a clean fill and a faint rim light, with true "
      "colours and sharp focus.",
      FACT(PHOTO) | FACT(SOFT) | FACT(INDOORS) | FACT(STUDIO), 0, F_NO_AIR | FACT(OUTDOORS) | FACT(FIRE) },
    { "It is photographed with an 85 mm lens at f/4 from a tripod, with controlled light and accurate white balance.",
      FACT(PHOTO), 0, FACT(WIDE) | FACT(ABOVE) | F_NO_AIR },
    { "It is photographed on location with a 35 mm lens, a touch of fill flash and clean, even exposure.",
      FACT(PHOTO) | FACT(OUTDOORS), 0, F_NO_AIR | FACT(CLOSE) | FACT(INDOORS) },
    { "It is a medium-format photograph: [a long tonal scale|fine gradation], crisp detail where the focus lies, a "
      "gentle fall-off behind.",
      FACT(PHOTO), 0, 0 },
    { "The light is carefully controlled, the colours are true, and the finish is spotless, as for a printed campaign.",
      0, 0, 0 },
};

#define LIST(name)                                                                                                     \
    { name, sizeof(name) / sizeof(name)[0] }
static const struct {
    const struct sentence *list;
    size_t n;
} of_direction[N_DIRECTIONS] = { LIST(cinematic),      LIST(asymmetrical),          LIST(unique),
                                 LIST(rule_of_thirds), LIST(strong_negative_space), LIST(production_photography) };

/* ---- Facts of a prompt ---- */

static bool has_one_of(const char *words, const char *list) {
    char *copy = text_copy(list), *rest = copy;
    bool is_there = false;
    for (const char *word = strsep(&rest, "|"); word != NULL && !is_there; word = strsep(&rest, "|")) {
        is_there = builtin_has(words, word);
    }
    free(copy);
    return is_there;
}

static uint64_t read_facts(const char *words) {
    uint64_t facts = 0;
    for (size_t i = 0; i < sizeof vocabulary / sizeof vocabulary[0]; i++) {
        facts |= has_one_of(words, vocabulary[i].words) ? vocabulary[i].facts : 0;
    }
    return facts;
}

/* Little words of English are in every longer English text; those of others, or letters of others, without them are
 * not English. */
static bool is_english(const char *words) {
    size_t n_foreign = 0, n = strlen(words);
    for (size_t i = 0; i < n; i++) {
        n_foreign += (unsigned char)words[i] >= 0x80;
    }
    const bool has_english = has_one_of(words, "a|an|the|of|in|with|and|on|at|under|near|through|by|from|over");
    const bool has_other = has_one_of(
        words, "der|die|das|und|ein|eine|einem|mit|im|auf|le|la|les|des|une|un|dans|avec|el|los|las|en|una|con|"
               "il|di|della|nel|com|uma|um|no mar|een|het|van|na|w|z");
    return n_foreign * 3 < n && (has_english || !has_other);
}

/* ---- Choosing ---- */

struct writer {
    const struct builtin_request *request;
    uint64_t random, facts;
    uint64_t banned; /* facts that are ruled out */
    char *ruled_out; /* words that must not be added */
    char *text;
};

static bool fits(const struct writer *writer, const struct sentence *sentence) {
    if ((sentence->needs & ~writer->facts) != 0 || (sentence->never & writer->facts) != 0 ||
        (sentence->says & writer->banned) != 0) {
        return false;
    }
    for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++) {
        const uint64_t said = writer->facts & groups[i], says = sentence->says & groups[i];
        if (said != 0 && says != 0 && (said & says) == 0) {
            return false;
        }
    }
    return true;
}

/* Of a group on which both speak, what both say holds from here on. */
static void learn(struct writer *writer, uint64_t says) {
    for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++) {
        const uint64_t both = writer->facts & says & groups[i];
        writer->facts = both != 0 ? (writer->facts & ~groups[i]) | both : writer->facts | (says & groups[i]);
    }
}

/* One choice of each bracket. A new string. */
static char *expand(struct writer *writer, const char *text) {
    char *out = text_alloc(strlen(text) + 1, 1), *end = out;
    while (*text != '\0') {
        if (*text != '[') {
            *end++ = *text++;
            continue;
        }
        const char *close = strchr(text, ']');
        size_t n = 1;
        for (const char *c = text; c < close; c++) {
            n += *c == '|';
        }
        const char *choice = text + 1;
        for (uint64_t skip = builtin_random(&writer->random) % n; skip > 0; skip--) {
            choice = strchr(choice, '|') + 1;
        }
        const size_t length = strcspn(choice, "|]");
        memcpy(end, choice, length);
        end += length;
        text = close + 1;
    }
    *end = '\0';
    return out;
}

/* Does the sentence bring up words of some length that the text has already? */
static bool repeats(const char *text_words, const char *sentence_words) {
    static const char *const common[] = { "subject", "picture", "detail", "details", "light",
                                          "between", "against", "behind", "clear",   "scene" };
    char *copy = text_copy(sentence_words), *rest = copy;
    bool is_repeated = false;
    for (const char *word = strsep(&rest, " "); word != NULL && !is_repeated; word = strsep(&rest, " ")) {
        bool is_common = strlen(word) < 5;
        for (size_t i = 0; i < sizeof common / sizeof common[0]; i++) {
            is_common = is_common || strcmp(word, common[i]) == 0;
        }
        is_repeated = !is_common && builtin_has(text_words, word);
    }
    free(copy);
    return is_repeated;
}

static void append(struct writer *writer, const char *sentence) {
    char *longer = text_format("%s %s", writer->text, sentence);
    free(writer->text);
    writer->text = longer;
}

/* Adds a sentence of the list that fits; rather one that takes up what was said, and one that repeats no word. */
static void add_one(struct writer *writer, const struct sentence *list, size_t n) {
    char *text_words = builtin_words(writer->text);
    const size_t first = (size_t)(builtin_random(&writer->random) % n);
    const int first_pass = builtin_random(&writer->random) % 4 == 0 ? 1 : 0; /* for variety */
    bool is_done = false;
    for (int pass = first_pass; pass < 4 && !is_done; pass++) {
        for (size_t i = 0; i < n && !is_done; i++) {
            const struct sentence *sentence = &list[(first + i) % n];
            const bool is_special = sentence->needs != 0 || (sentence->says & writer->facts) != 0;
            if (!fits(writer, sentence) || (pass < 2 && (pass == 0) != is_special)) {
                continue;
            }
            char *text = expand(writer, sentence->text), *words = builtin_words(text);
            if (!builtin_shares_word(writer->ruled_out, words) && (pass == 3 || !repeats(text_words, words))) {
                append(writer, text);
                learn(writer, sentence->says);
                is_done = true;
            }
            free(words);
            free(text);
        }
    }
    free(text_words);
}

#define ADD_ONE(writer, list) add_one(writer, list, sizeof(list) / sizeof(list)[0])

/* Somebody's own instruction, as a sentence. */
static void add_instruction(struct writer *writer, const char *instruction) {
    const char *text = instruction + strspn(instruction, " \t\r\n");
    size_t n = strlen(text);
    while (n > 0 && strchr(" \t\r\n", text[n - 1]) != NULL) {
        n--;
    }
    char *sentence = text_format("%.*s%s", (int)n, text, n > 0 && strchr(".!?", text[n - 1]) != NULL ? "" : ".");
    append(writer, sentence);
    free(sentence);
}

static void add_directions(struct writer *writer) {
    for (enum direction i = 0; i < N_DIRECTIONS; i++) {
        if ((writer->request->directions & (1u << i)) == 0) {
            continue;
        }
        if (writer->request->instructions[i] != NULL) {
            add_instruction(writer, writer->request->instructions[i]);
        } else {
            add_one(writer, of_direction[i].list, of_direction[i].n);
        }
    }
}

/* What a picture needs beside the directions; fewer sentences the more was said. */
static void add_rest(struct writer *writer, size_t n_prompt_words) {
    int n_directions = 0;
    for (enum direction i = 0; i < N_DIRECTIONS; i++) {
        n_directions += (writer->request->directions & (1u << i)) != 0;
    }
    if (n_prompt_words > 90) {
        return;
    }
    if ((writer->facts & (FACT(PAINT) | FACT(WATERCOLOUR) | FACT(DRAWN) | FACT(RENDER) | FACT(GRAPHIC))) != 0 ||
        n_directions == 0) {
        ADD_ONE(writer, medium);
    }
    if ((writer->facts & FACT(GRAPHIC)) != 0) {
        return;
    }
    if (n_directions < 5) {
        ADD_ONE(writer, material);
    }
    if (n_directions < 3) {
        ADD_ONE(writer, atmosphere);
    }
    if (n_directions < 2 && ((writer->facts & GROUP_COLOUR) == 0 || (writer->facts & FACT(MONO)) != 0)) {
        ADD_ONE(writer, colour);
    }
}

char *builtin_prose(const struct builtin_request *request) {
    struct writer writer = { .request = request, .random = request->seed };
    char *words = builtin_words(request->prompt);
    size_t n = strlen(request->prompt), n_words = 0;
    for (const char *c = words; *c != '\0'; c++) {
        n_words += *c == ' ';
    }
    while (n > 0 && strchr(" \t\r\n", request->prompt[n - 1]) != NULL) {
        n--;
    }
    const char last = n > 0 ? request->prompt[n - 1] : '.';
    n -= last == ',' || last == ';' || last == ':' ? 1 : 0;
    const bool is_ended = last == '.' || last == '!' || last == '?';
    writer.text = text_format("%.*s%s", (int)n, request->prompt, is_ended ? "" : ".");
    writer.ruled_out = builtin_ruled_out(words, request->negative);
    char *ruled_out_words = builtin_words(writer.ruled_out);
    writer.banned = read_facts(ruled_out_words);
    free(ruled_out_words);
    writer.facts = read_facts(words);
    if (!is_english(words)) {
        add_directions(&writer);
        ADD_ONE(&writer, neutral);
        ADD_ONE(&writer, neutral);
    } else {
        if ((writer.facts & (GROUP_LIGHT | FACT(GRAPHIC))) == 0 || (writer.facts & (FACT(FIRE) | FACT(SIGNS))) != 0) {
            ADD_ONE(&writer, light);
        }
        add_directions(&writer);
        add_rest(&writer, n_words);
    }
    free(writer.ruled_out);
    free(words);
    return writer.text;
}
