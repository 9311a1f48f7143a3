//! Short common nouns for the keys of needles.

/// All different, in lower case, without hyphens.
pub(crate) const WORDS: [&str; 208] = [
    "acorn", "amber", "anchor", "apple", "arrow", "atlas", "badge", "bamboo", "barn", "basil",
    "basket", "beacon", "beetle", "bell", "berry", "birch", "bison", "blanket", "blossom", "boat",
    "bottle", "branch", "bread", "bridge", "brook", "broom", "bucket", "button", "cabin", "cactus",
    "camel", "candle", "canoe", "canyon", "carpet", "castle", "cedar", "cellar", "chain", "cherry",
    "chimney", "circle", "cliff", "clock", "cloud", "clover", "cobalt", "comet", "compass",
    "copper", "coral", "cotton", "crane", "crater", "cricket", "crown", "crystal", "curtain",
    "daisy", "desert", "diamond", "dolphin", "donkey", "dragon", "drum", "eagle", "ember",
    "engine", "falcon", "feather", "fence", "fern", "fiddle", "flag", "flute", "forest", "fossil",
    "fountain", "fox", "garden", "garlic", "gate", "ginger", "glacier", "glove", "goose", "grape",
    "gravel", "hammer", "harbor", "harp", "hazel", "helmet", "heron", "hill", "honey", "horn",
    "island", "ivory", "jacket", "jasmine", "jewel", "jungle", "kettle", "kite", "ladder",
    "lagoon", "lake", "lamp", "lantern", "lark", "laurel", "lemon", "lily", "linen", "lion",
    "lizard", "locket", "lotus", "magnet", "mango", "maple", "marble", "meadow", "melon", "mill",
    "mirror", "mitten", "moon", "moose", "moss", "moth", "mountain", "nectar", "nest", "oak",
    "ocean", "olive", "onion", "opal", "orchard", "orchid", "otter", "owl", "oyster", "paddle",
    "palace", "panda", "paper", "parrot", "peach", "pearl", "pebble", "pepper", "piano", "pigeon",
    "pillow", "pine", "planet", "plum", "pocket", "pond", "poppy", "prairie", "puffin", "quartz",
    "rabbit", "raven", "reed", "ribbon", "river", "robin", "rocket", "rose", "ruby", "saddle",
    "saffron", "sail", "salmon", "sandal", "shell", "silver", "sparrow", "spoon", "spruce", "star",
    "stone", "sugar", "swan", "table", "temple", "thistle", "thunder", "tiger", "timber", "torch",
    "tower", "trumpet", "tulip", "tunnel", "turtle", "valley", "velvet", "violet", "walnut",
    "whale", "willow", "window",
];
