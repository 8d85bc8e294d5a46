//! The closed vocabulary: everything that can be drawn, and the words for it.

/// Declares an enum whose values have names, the usual one first.
macro_rules! words {
    ($(#[$doc:meta])* $kind:ident { $($value:ident: [$($name:literal),+]),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(super) enum $kind { $($value),+ }

        // Every vocabulary has the same methods, whether or not each is used.
        #[allow(dead_code)]
        impl $kind {
            /// Every value, in a fixed order.
            pub const ALL: &[$kind] = &[$($kind::$value),+];

            /// The names that mean this value, the usual one first.
            pub fn names(self) -> &'static [&'static str] {
                match self { $($kind::$value => &[$($name),+]),+ }
            }

            /// The usual name.
            pub fn word(self) -> &'static str {
                self.names()[0]
            }
        }
    };
}

words! {
    /// What stands in a picture.
    Shape {
        Circle: ["circle", "disc"],
        Square: ["square"],
        Triangle: ["triangle"],
        Star: ["star"],
        Cross: ["cross", "plus"],
        Ring: ["ring", "hoop"],
        Diamond: ["diamond"],
        Heart: ["heart"],
    }
}

words! {
    /// What a shape is painted with.
    Colour {
        Red: ["red"],
        Orange: ["orange"],
        Yellow: ["yellow"],
        Green: ["green"],
        Blue: ["blue"],
        Purple: ["purple", "violet"],
        Pink: ["pink"],
        Brown: ["brown"],
    }
}

words! {
    /// How much room a shape takes; told only where a picture holds one or two shapes.
    Size {
        Small: ["small", "little"],
        Large: ["large", "big"],
    }
}

words! {
    /// Where a shape stands that has the picture for itself.
    Place {
        Left: ["on the left", "at the left side"],
        Right: ["on the right", "at the right side"],
        Top: ["at the top", "in the upper part"],
        Bottom: ["at the bottom", "in the lower part"],
        Centre: ["in the centre", "in the middle"],
    }
}

words! {
    /// What lies behind the shapes.
    Background {
        White: ["white", "a white background"],
        Grey: ["grey", "a grey background"],
        Black: ["black", "a dark background"],
        Stripes: ["stripes", "a striped background"],
        Checks: ["checks", "a checkered background"],
        Dots: ["dots", "a dotted background"],
    }
}

words! {
    /// What a shape does in a clip.
    Motion {
        Right: ["moving right", "moving to the right"],
        Left: ["moving left", "moving to the left"],
        Up: ["moving up", "rising"],
        Down: ["moving down", "falling"],
        Growing: ["growing", "getting bigger"],
        Shrinking: ["shrinking", "getting smaller"],
        Blinking: ["blinking", "flashing"],
        Turning: ["turning", "rotating"],
        Orbiting: ["going round", "going round and round"],
    }
}

words! {
    /// The first half of a page's title.
    Town {
        Harbour: ["harbour"],
        Garden: ["garden"],
        Castle: ["castle"],
        Forest: ["forest"],
        Market: ["market"],
        Museum: ["museum"],
        Station: ["station"],
        School: ["school"],
        Bakery: ["bakery"],
        Library: ["library"],
        Island: ["island"],
        Tower: ["tower"],
        Village: ["village"],
        River: ["river"],
        Bridge: ["bridge"],
        Farm: ["farm"],
    }
}

words! {
    /// The second half of a page's title.
    Firm {
        Shop: ["shop"],
        Store: ["store"],
        Club: ["club"],
        Team: ["team"],
        Depot: ["depot"],
        Stand: ["stand"],
        Office: ["office"],
        Studio: ["studio"],
        Stall: ["stall"],
        Hall: ["hall"],
        House: ["house"],
        Yard: ["yard"],
        Group: ["group"],
        Fair: ["fair"],
        Works: ["works"],
        Lab: ["lab"],
    }
}

words! {
    /// How a page shows its numbers.
    Style {
        Table: ["list", "table"],
        Chart: ["chart", "bar chart"],
    }
}

impl Shape {
    /// The usual name of several.
    pub fn plural(self) -> String {
        let word = self.word();
        if word.ends_with('s') { format!("{word}es") } else { format!("{word}s") }
    }

    /// Whether turning the shape changes how it looks.
    pub fn can_turn(self) -> bool {
        !matches!(self, Shape::Circle | Shape::Ring)
    }
}

impl Colour {
    /// The paint, 0 to 255.
    pub fn rgb(self) -> [u8; 3] {
        match self {
            Colour::Red => [216, 32, 40],
            Colour::Orange => [255, 138, 10],
            Colour::Yellow => [250, 214, 20],
            Colour::Green => [38, 156, 62],
            Colour::Blue => [38, 92, 224],
            Colour::Purple => [134, 48, 176],
            Colour::Pink => [248, 130, 190],
            Colour::Brown => [126, 76, 40],
        }
    }
}

/// Words for 0 to 9.
pub(super) const NUMBERS: [&str; 10] =
    ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];

/// Puts "a" or "an" before `noun`.
pub(super) fn with_article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {noun}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_means_two_things() {
        let mut words: Vec<&str> = Vec::new();
        for names in [
            Shape::ALL.iter().flat_map(|s| s.names()).collect::<Vec<_>>(),
            Colour::ALL.iter().flat_map(|c| c.names()).collect(),
            Motion::ALL.iter().flat_map(|m| m.names()).collect(),
            Place::ALL.iter().flat_map(|p| p.names()).collect(),
            Town::ALL.iter().flat_map(|t| t.names()).collect(),
            Firm::ALL.iter().flat_map(|f| f.names()).collect(),
        ] {
            words.extend(names);
        }
        let count = words.len();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), count);
    }

    #[test]
    fn nouns_take_their_article_and_plural() {
        assert_eq!(with_article("orange star"), "an orange star");
        assert_eq!(with_article("red star"), "a red star");
        assert_eq!(Shape::Cross.plural(), "crosses");
        assert_eq!(Shape::Ring.plural(), "rings");
    }
}
