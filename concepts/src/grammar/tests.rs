use super::*;

/// Marks the phrases of a tagged text: "the/DT dog/NN" becomes "[the dog]".
fn bracketed(tagged: &str) -> String {
    let (mut text, mut words, mut tags) = (String::new(), Vec::new(), Vec::new());
    for word in tagged.split(' ') {
        let (word, tag) = word.rsplit_once('/').unwrap();
        if !text.is_empty() {
            text.push(' ');
        }
        let start = text.len() as u32;
        text.push_str(word);
        words.push(Word { start, end: text.len() as u32 });
        tags.push(Tag::from_name(tag).unwrap());
    }
    let mut found = Vec::new();
    phrases(&text, &words, &mut tags, &mut found);
    let mut line = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let opens = found.iter().any(|phrase| phrase.start == at);
        let closes = found.iter().any(|phrase| phrase.end == at + 1);
        line.push(format!(
            "{}{}{}",
            if opens { "[" } else { "" },
            word.of(&text),
            if closes { "]" } else { "" }
        ));
    }
    line.join(" ")
}

#[test]
fn each_rule_of_the_grammar() {
    for (tagged, expected) in [
        // modifiers
        ("two/CD big/JJ red/JJ fire/NN trucks/NNS", "[two big red fire trucks]"),
        ("all/PDT the/DT dogs/NNS run/VBP", "[all the dogs] run"),
        ("a/DT very/RB old/JJ car/NN", "[a very old car]"),
        ("runs/VBZ very/RB fast/RB", "runs very fast"),
        ("a/DT red/JJ ,/, white/JJ ,/, and/CC blue/JJ flag/NN", "[a red , white , and blue flag]"),
        ("the/DT parked/VBN car/NN", "[the parked car]"),
        ("room/NN with/IN tiled/VBN walls/NNS", "[room] with [tiled walls]"),
        ("is/VBZ given/VBN food/NN", "is given [food]"),
        // possessives
        ("the/DT dog/NN 's/POS red/JJ bowl/NN", "[the dog 's red bowl]"),
        ("the/DT dog/NN 's/POS the/DT bowl/NN", "[the dog] 's [the bowl]"),
        // between nouns
        ("yamaha/NNP kodiak/NNP 700/CD eps/NNP", "[yamaha kodiak 700 eps]"),
        ("a/DT snow/NN covered/VBN mountain/NN", "[a snow covered mountain]"),
        ("ivory/NN 8/CD x/NN 10/CD rug/NN", "[ivory 8 x 10 rug]"),
        ("ivory/NN 8/CD ft/NN ×/NN 10/CD", "[ivory 8 ft] × 10"),
        ("a/DT dog/NN running/VBG water/NN", "[a dog] running [water]"),
        ("a/DT basement/NN living/VBG area/NN", "[a basement living area]"),
        // no phrases, or shortened ones
        ("in/IN front/NN of/IN a/DT house/NN", "in front of [a house]"),
        ("the/DT front/NN of/IN a/DT house/NN", "[the front] of [a house]"),
        ("something/NN on/IN a/DT plate/NN", "something on [a plate]"),
        ("a/DT pizza/NN sits/NNS on/IN a/DT plate/NN", "[a pizza] sits on [a plate]"),
        ("two/CD pizza/NN pans/NNS", "[two pizza pans]"),
        ("a/DT tv/NN series/NNS", "[a tv series]"),
        // words whose tags are corrected
        ("computer/NN with/IN it/PRP 's/VBZ monitor/NN", "[computer] with [it 's monitor]"),
        ("so/RB it/PRP 's/VBZ monday/NNP", "so it 's [monday]"),
        ("a/DT close/JJ up/RP of/IN food/NN", "[a close up] of [food]"),
        ("an/DT iguana/JJ and/CC two/CD birds/NNS", "[an iguana] and [two birds]"),
        ("the/DT north/JJ won/VBD the/DT war/NN", "[the north] won [the war]"),
        ("next/IN to/TO the/DT other/JJ in/IN a/DT row/NN", "next to the other in [a row]"),
        ("a/DT black/JJ and/CC white/JJ cat/NN", "[a black and white cat]"),
        ("a/DT stand-up/VB video/NN game/NN", "[a stand-up video game]"),
        ("pet/NN metal-net/JJ look/NN chair/NN", "[pet metal-net look chair]"),
        ("showing/VBG it/PRP 's/VBZ stuffed/VBN contents/NNS", "showing [it 's stuffed contents]"),
        ("so/RB it/PRP 's/VBZ throwing/VBG sand/NN", "so it 's throwing [sand]"),
        ("close/RB -/: up/RB of/IN food/NN", "[close - up] of [food]"),
        ("keep/VB close/RB -/: up/RB the/DT hill/NN", "keep close - up [the hill]"),
        // colours
        ("a/DT man/NN in/IN black/JJ plays/VBZ", "[a man] in [black] plays"),
        ("a/DT man/NN in/IN black/JJ riding/VBG a/DT horse/NN", "[a man] in [black] riding [a horse]"),
        ("in/IN black/JJ riding/VBG boots/NNS", "in [black riding boots]"),
        ("in/IN dark/JJ red/JJ and/CC white/JJ ./.", "in [dark red] and [white] ."),
        ("wearing/VBG black/JJ ,/, white/JJ ,/, and/CC red/JJ", "wearing [black] , [white] , and [red]"),
        ("in/IN red/JJ and/CC a/DT hat/NN", "in [red] and [a hat]"),
        ("in/IN teal/NN and/CC red/JJ ./.", "in [teal] and [red] ."),
        ("in/IN silver/NN and/CC red/JJ socks/NNS", "in [silver] and [red socks]"),
        ("in/IN red/JJ and/CC striped/VBN socks/NNS", "in red and [striped socks]"),
        ("in/IN red/JJ and/CC white/JJ shirts/NNS", "in [red and white shirts]"),
        ("is/VBZ painted/VBN red/JJ ./.", "is painted red ."),
        ("wearing/VBG all/DT red/JJ ,/, holding/VBG on/RP", "wearing [all red] , holding on"),
        ("in/IN black/JJ and/CC one/CD in/IN gray/JJ ,/,", "in [black] and one in [gray] ,"),
        ("the/DT black/JJ and/CC tan/NN dog/NN", "[the black and tan dog]"),
        ("i/PRP like/VBP the/DT light/JJ blue/JJ ./.", "i like [the light blue] ."),
        // adjectives and adverbs after an article
        ("a/DT male/JJ wearing/VBG a/DT hat/NN", "[a male] wearing [a hat]"),
        ("a/DT male/JJ swimming/VBG teacher/NN", "[a male swimming teacher]"),
        ("in/IN the/DT dark/JJ ./.", "in [the dark] ."),
        ("all/DT white/JJ ./.", "all white ."),
        ("an/DT outdoors/RB concert/NN", "[an outdoors concert]"),
        ("enjoying/VBG the/DT outdoors/RB", "enjoying [the outdoors]"),
        ("fans/NNS of/IN the/DT walking/VBG dead/JJ", "[fans] of [the walking dead]"),
        ("a/DT bald/JJ headed/VBD man/NN", "[a bald headed man]"),
        ("the/DT old/JJ saw/VBD the/DT sea/NN", "[the old] saw [the sea]"),
        ("an/DT adult/NN black/JJ bear/NN", "[an adult black bear]"),
        ("an/DT adult/NN happy/JJ to/TO run/VB", "[an adult] happy to run"),
        // adverbs
        ("an/DT upside/NN down/RB trick/NN", "[an upside down trick]"),
        ("a/DT bike/NN upside/NN down/RP in/IN mud/NN", "[a bike] upside down in [mud]"),
        ("something/NN offstage/NN", "something offstage"),
        ("someone/NN 's/POS hand/NN", "[someone 's hand]"),
        ("an/DT old/JJ ,/, metal/NN sign/NN", "[an old , metal sign]"),
        ("a/DT wet/JJ ,/, smiling/VBG child/NN", "[a wet , smiling child]"),
        ("old/JJ ,/, dogs/NNS", "old , [dogs]"),
        ("a/DT good/JJ swim/VBP ./.", "[a good swim] ."),
        ("the/DT old/JJ swim/VBP ./.", "[the old] swim ."),
        ("people/NNS each/DT holding/VBG flowers/NNS", "[people] each holding [flowers]"),
        ("she/PRP shows/VBZ her/PRP$ a/DT phone/NN", "she shows her [a phone]"),
        ("facing/VBG each/DT other/JJ make/NN sense/NN", "facing each other [make sense]"),
        ("a/DT view/NN #/# sunset/NN", "[a view] # [sunset]"),
        ("a/DT donut/NN like/IN toy/NN", "[a donut like toy]"),
        ("oval/JJ like/IN mirrors/NNS", "[oval like mirrors]"),
        ("animals/NNS like/IN dogs/NNS", "[animals] like [dogs]"),
        ("with/IN blocked/VBN off/RP windows/NNS", "with [blocked off windows]"),
        ("is/VBZ blocked/VBN off/RP windows/NNS", "is blocked off [windows]"),
        ("in/IN swim/VBP trunks/NNS", "in [swim trunks]"),
        ("an/DT empty/JJ hall/NN today/NN ./.", "[an empty hall] today ."),
        ("volunteers/NNS paint/NN the/DT fence/NN", "[volunteers] paint [the fence]"),
        ("the/DT bridge/NN spans/NNS a/DT river/NN", "[the bridge] spans [a river]"),
        ("a/DT man/NN in/IN red/JJ rides/NNS a/DT bike/NN", "[a man] in [red] rides [a bike]"),
        ("are/VBP all/DT riding/VBG bikes/NNS", "are all riding [bikes]"),
        ("all/DT riding/VBG boots/NNS", "[all riding boots]"),
        ("two/CD bus/NN stops/NNS on/IN a/DT road/NN", "[two bus stops] on [a road]"),
        ("under/IN the/DT awning/VBG keeping/VBG out/RP", "under [the awning] keeping out"),
        ("the/DT smiling/VBG running/VBG man/NN", "[the smiling running man]"),
        ("a/DT rug/NN 9cm/NN wide/JJ", "[a rug] 9cm wide"),
        ("carbon/NNP steel/NNP perforated/VBD mesh/NNP", "[carbon steel perforated mesh]"),
        ("the/DT perfect/JJ opt-in/RP offer/NN", "[the perfect opt-in offer]"),
        // participles
        ("a/DT pyramid/NN shaped/VBD tree/NN", "[a pyramid shaped tree]"),
        ("a/DT man/NN carried/VBD water/NN", "[a man] carried [water]"),
        ("with/IN matching/VBG shoes/NNS", "with [matching shoes]"),
        ("a/DT man/NN in/IN running/VBG shorts/NNS", "[a man] in [running shorts]"),
        ("engaged/VBN in/IN playing/VBG games/NNS", "engaged in playing [games]"),
        ("for/IN catching/VBG fish/NN", "for catching [fish]"),
        ("at/IN dusk/NN ,/, smiling/VBG women/NNS", "at [dusk] , [smiling women]"),
        ("with/IN their/PRP$ loved/VBD ones/NNS", "with [their loved ones]"),
        ("a/DT carnival/NN -/: like/IN mood/NN", "[a carnival - like mood]"),
        ("smiling/VBG friends/NNS on/IN a/DT beach/NN", "[smiling friends] on [a beach]"),
        ("works/VBZ above/IN shattered/VBD stone/NN", "works above [shattered stone]"),
        ("and/CC short/JJ sleeved/VBD matching/VBG jacket/NN", "and [short sleeved matching jacket]"),
        // verbs after "to"
        ("waits/VBZ to/TO board/NN the/DT train/NN", "waits to board [the train]"),
        ("next/JJ to/TO water/NN the/DT dogs/NNS run/VBP", "next to [water] [the dogs] run"),
        // hyphens
        ("t/NN -/: shirts/NNS", "[t - shirts]"),
        ("plan/NN b/NN -/: poster/NN", "[plan b] - [poster]"),
        ("a/DT full/JJ -/: length/NN mirror/NN", "[a full - length mirror]"),
        ("the/DT mirror/NN -/: book/NN cover/NN", "[the mirror] - [book cover]"),
        ("film/NN -/: inspired/VBN party/NN", "[film - inspired party]"),
        ("wall/NN art/NN -/: framed/VBN print/NN", "[wall art] - [framed print]"),
        ("100/CD %/NN cotton/NN towel/NN", "[100 % cotton towel]"),
        ("a/DT pale/JJ pink/JJ heart/NN -/: shaped/VBN flower/NN", "[a pale pink heart - shaped flower]"),
        ("high/JJ -/: waisted/VBN skinny/JJ jeans/NNS", "[high - waisted skinny jeans]"),
        ("after/IN the/DT game/NN -/: winning/NN goal/NN", "after [the game - winning goal]"),
        ("this/DT typical/JJ split/NN -/: level/NN house/NN", "[this typical split - level house]"),
        ("our/PRP$ clean/JJ -/: up/RP across/IN the/DT coast/NN", "[our clean - up] across [the coast]"),
        ("a/DT stand/NN -/: up/RP comedian/NN", "[a stand - up comedian]"),
        ("the/DT violent/JJ :/: high/JJ stakes/NNS", "the violent : [high stakes]"),
        ("a/DT witch/NN w/NN //SYM a/DT hat/NN", "[a witch] w / [a hat]"),
        // names of things: figures, and in titles adjectives, between nouns
        ("an/DT iphone/NN 7/CD plus/CC case/NN", "[an iphone 7 plus case]"),
        ("at/IN night/NN two/CD dogs/NNS", "at [night] [two dogs]"),
        ("wool/NN iphone/NN 3/CD tough/JJ cover/NN", "[wool iphone 3 tough cover]"),
        ("he/PRP gave/VBD dogs/NNS fresh/JJ water/NN", "he gave [dogs] [fresh water]"),
        ("pet/NN soft/JJ washed/VBN bed/NN by/IN jo/NN", "[pet soft washed bed] by [jo]"),
        // numbers
        ("at/IN least/JJS one/CD ship/NN", "[at least one ship]"),
        ("a/DT dozen/NN bike/NN riders/NNS", "[a dozen bike riders]"),
        // words that are nouns in one place and not in another
        ("jumps/VBZ over/IN his/PRP$ back/RB ./.", "jumps over [his back] ."),
        ("second/JJ from/IN left/VBN ,/,", "second from [left] ,"),
        ("with/IN coffee/NN past/NN theaters/NNS", "with [coffee] past [theaters]"),
        ("watch/VB the/DT train/VBP come/VB in/RP", "watch [the train] come in"),
        ("decorate/VBP a/DT tree/NN in/IN front/NN", "decorate [a tree] in front"),
        ("ana/NNP with/IN the/DT wanted/VBN at/IN sea/NN", "[ana] with [the wanted] at [sea]"),
        ("a/DT trick/NN upside-down/NN on/IN rings/NNS", "[a trick] upside-down on [rings]"),
        ("with/IN a/DT dog/NN leaping/NN at/IN him/PRP", "with [a dog] leaping at him"),
        ("and/CC bowing/NN towards/IN their/PRP$ god/NN", "and bowing towards [their god]"),
        ("a/DT room/NN lighting/NN in/IN steel/NN", "[a room lighting] in [steel]"),
        ("sky/NN diving/NN in/IN may/NNP", "[sky diving] in [may]"),
        ("as/IN pianist/JJ awaits/VBZ his/PRP$ turn/NN", "as [pianist] awaits [his turn]"),
        ("sleeve/NN destroyed/VBD camo/NNP shirt/NN", "[sleeve destroyed camo shirt]"),
        ("a/DT boys/NNS bicycle/VBP leans/VBZ", "[a boys bicycle] leans"),
        ("licks/VBZ its/PRP$ owners/NNS face/VBP ./.", "licks [its owners face] ."),
        ("the/DT men/NNS face/VBP the/DT sea/NN", "[the men] face [the sea]"),
        ("on/IN a/DT womans/VBZ hand/NN", "on [a womans hand]"),
        ("look/VB at/IN this/DT one/NN ./.", "look at this one ."),
        ("share/VBP a/DT smile/NN monday/NNP during/IN", "share [a smile] monday during"),
        ("monday/NNP night/NN football/NN", "[monday night football]"),
        ("performs/VBZ onstage/NN in/IN white/JJ ./.", "performs onstage in [white] ."),
        ("on/IN a/DT 1860/CD 's/POS envelope/NN", "on [a 1860 's envelope]"),
        ("go/VB ?/. mounted/VBN desks/NNS are/VBP", "go ? [mounted desks] are"),
        ("modern/JJ womens/NNS new/JJ boots/NNS are/VBP", "[modern womens new boots] are"),
        ("not/RB the/DT high/JJ -/: pressure/NN gas/NN", "not [the high - pressure gas]"),
        ("is/VBZ lime/NN green/JJ paint/NN", "is [lime green paint]"),
        ("hits/VBZ rome/NNP last/JJ month/NN", "hits [rome] [last month]"),
        ("wide/JJ screen/NN modern/JJ set/NN on/IN a/DT desk/NN", "[wide screen modern set] on [a desk]"),
        ("ana/NN 's/POS back-up/RP car/NN", "[ana 's back-up car]"),
        ("older/JJR male/JJ standing/VBG on/IN top/NN ./.", "[older male] standing on [top] ."),
        ("a/DT short-sleeve/NN floral/JJ dress/NN", "[a short-sleeve floral dress]"),
        ("bike/NNP touring/VBG route/NN", "[bike touring route]"),
        ("lewis/NNP holding/VBG trophy/NN", "[lewis] holding [trophy]"),
        ("a/DT man/NN feeding/VBG rover/NNP", "[a man] feeding [rover]"),
        ("there/EX is/VBZ no/DT racing/VBG like/IN it/PRP", "there is [no racing] like it"),
        // names: trade marks, inches and feet, Roman numerals, amounts, companies
        (
            "4-door/CD flex/NNP ™/SYM refrigerator/NN in/IN steel/NN",
            "[4-door flex ™ refrigerator] in [steel]",
        ),
        ("ge/NNP ®/SYM for/IN kids/NNS", "[ge] ® for [kids]"),
        ("world/NNP war/NNP ii/NNP tank/NN in/IN part/NN iii/NNP ./.", "[world war ii tank] in [part] iii ."),
        ("hooked/VBN to/TO an/DT iv/NN", "hooked to [an iv]"),
        ("chicken/NN breast/NN 500g/NN", "[chicken breast 500g]"),
        ("on/IN june/NNP 10th/NN", "on [june] 10th"),
        ("canvas/NN print/NN #/# oxm237/NNP", "[canvas print] # oxm237"),
        ("#/# chinese/JJ structure/NN", "# [chinese structure]"),
        ("ana/NNP craftsmen/NNS ,/, inc./NN french/JJ cart/NN", "[ana craftsmen , inc. french cart]"),
        // adjectives that a noun describes
        ("the/DT fungus/NN resistant/JJ gene/NN", "[the fungus resistant gene]"),
        ("a/DT sugar/NN free/JJ cake/NN", "[a sugar free cake]"),
        ("the/DT sweater/NN free/JJ shipping/NN", "[the sweater] [free shipping]"),
        ("ana/NNP magically/RB good/JJ magnet/NN", "[ana magically good magnet]"),
        ("waiting/VBG outdoors/RB slow/JJ motion/NN", "waiting outdoors [slow motion]"),
        // colours: joined before a noun; adjectives after their noun and by themselves
        ("pink/NNP &/CC blue/NNP owls/NNS", "[pink & blue owls]"),
        ("red/NNP &/CC white/JJ striped/VBN scarf/NN", "[red & white striped scarf]"),
        ("gold/NN and/CC silver/NN alloy/NN chains/NNS", "[gold and silver alloy chains]"),
        ("leather/NN gloves/NNS pair/NN navy/NN blue/NN (/-LRB-", "[leather gloves pair] navy blue ("),
        ("a/DT dress/NN in/IN mint/NN green/NN", "[a dress] in [mint green]"),
        ("jack/NNP black/NNP -/: poster/NN", "[jack black] - [poster]"),
        ("shoes/NNS (/-LRB- black/NNP )/-RRB- by/IN jo/NNP", "[shoes] ( black ) by [jo]"),
        ("shorts/NNS -/: black/NNP //SYM teal/NNP", "[shorts] - black / teal"),
        ("jam/NN -/: orange/NN", "[jam] - [orange]"),
        // two nouns that describe a third
        ("a/DT salt/NN and/CC pepper/NN shaker/NN", "[a salt and pepper shaker]"),
        ("a/DT salt/NN and/CC a/DT pepper/NN", "[a salt] and [a pepper]"),
        ("walking/NN &/CC hiking/NN boot/NN socks/NNS", "[walking & hiking boot socks]"),
        ("two/CD walls/NNS &/CC hiking/NN boots/NNS", "[two walls] & [hiking boots]"),
        // nouns that look like other words
        ("ana/NNP gloss/VBP pocket/NN leggings/NNS", "[ana gloss pocket leggings]"),
        ("dogs/NNS gloss/VBP pocket/NN leggings/NNS", "[dogs] gloss [pocket leggings]"),
        ("leather/NN and/CC suede/VB camera/NN strap/NN", "[leather] and [suede camera strap]"),
        ("to/TO sit/VB and/CC eat/VB food/NN", "to sit and eat [food]"),
        ("thumbnail/VB for/IN a/DT film/NN", "[thumbnail] for [a film]"),
        ("cover/VB image/NN for/IN a/DT book/NN", "[cover image] for [a book]"),
        ("us/PRP cyclist/NN in/IN rome/NNP", "[us cyclist] in [rome]"),
        ("can/MD of/IN cola/NN ./.", "[can] of [cola] ."),
        ("as/IN you/PRP can/MD ./.", "as you can ."),
        ("a/DT garbage/NN can/MD ./.", "[a garbage can] ."),
        ("bright/JJ led/VBD lamps/NNS by/IN jo/NNP", "[bright led lamps] by [jo]"),
        ("men/NNS led/VBD horses/NNS by/IN jo/NNP", "[men] led [horses] by [jo]"),
        ("bathroom/NN vanity/NN set/VBN by/IN jo/NNP", "[bathroom vanity set] by [jo]"),
        ("a/DT bridge/NN set/VBN by/IN water/NN", "[a bridge] set by [water]"),
        ("a/DT cat/NN on/IN a/DT railing/VBG", "[a cat] on [a railing]"),
        ("still/RB frame/NN from/IN a/DT film/NN", "[still frame] from [a film]"),
        ("new/JJ futuristic/JJ flying/VBG machines/NNS", "[new futuristic flying machines]"),
        ("poster/NN futuristic/JJ flying/VBG machines/NNS", "[poster futuristic flying machines]"),
        ("over/IN setting/VBG sun/NN", "over [setting sun]"),
        ("over/IN making/VBG soup/NN", "over making [soup]"),
        // verbs and prepositions that look like nouns
        ("a/DT woman/NN who/WP dances/NNS ./.", "[a woman] who dances ."),
        ("is/VBZ it/PRP birds/NNS ?/.", "is it [birds] ?"),
        ("chief/NN breaks/NNS down/RB ./.", "[chief] breaks down ."),
        ("keep/VB calm/NNP and/CC love/NN goats/NNS", "keep calm and love [goats]"),
        ("this/DT picture/NN show/NN a/DT tablet/NN", "[this picture] show [a tablet]"),
        ("star/NNP wars/NNS the/DT force/NN", "[star wars] [the force]"),
        ("a/DT game/NN vs./NN packers/NNS", "[a game] vs. [packers]"),
        ("ahead/RB of/IN the/DT vs/NNS series/NN", "ahead of [the vs series]"),
        // spaced hyphens
        ("my/PRP$ off/IN -/: road/NN wheels/NNS", "[my off - road wheels]"),
        ("warm/JJ -/: up/NN ,/, leads/VBZ", "[warm - up] , leads"),
        ("of/IN white/JJ royalty/NN free/JJ stock/NN photos/NNS", "of [white royalty free stock photos]"),
        ("a/DT kitten/NN royalty/NN free/JJ stock/NN photos/NNS", "[a kitten royalty free stock photos]"),
    ] {
        assert_eq!(bracketed(tagged), expected, "{tagged}");
    }
}

#[test]
fn words_of_titles_that_look_like_others() {
    for (tagged, expected) in [
        // plurals and participles that look like verbs, where no article shows a sentence
        ("jo/NNP bells/VBZ garden/NN photo/NN", "[jo bells garden photo]"),
        ("a/DT dog/NN bells/VBZ garden/NN", "[a dog] bells [garden]"),
        ("free/JJ workshop/NN dates/VBZ", "[free workshop dates]"),
        ("jo/NNP announces/VBZ tour/NN dates/NNS", "[jo] announces [tour dates]"),
        ("hand/NN tufted/VBD light/JJ rug/NN", "[hand tufted light rug]"),
        ("jo/NNP named/VBD best/JJS player/NN", "[jo] named [best player]"),
        ("garden/NN chairs/NNS rare/JJ new/NNP", "[garden chairs] rare new"),
        // in every text: dates, numbers after "#"
        ("at/IN the/DT exchange/NN may/NNP 13/CD ./.", "at [the exchange] [may] 13 ."),
        ("a/DT march/NN 2014/CD report/NN", "[a march 2014 report]"),
        ("upper/JJ deck/NN #/# 72/CD jo/NNP jones/NNP", "[upper deck] # 72 [jo jones]"),
    ] {
        assert_eq!(bracketed(tagged), expected, "{tagged}");
    }
}

#[test]
fn a_stroke_without_spaces_joins_two_words_before_a_noun() {
    for (text, tags, whole) in [
        ("tub/shower unit", &[Tag::NN, Tag::SYM, Tag::NN, Tag::NN][..], true),
        ("tub / shower unit", &[Tag::NN, Tag::SYM, Tag::NN, Tag::NN], false),
        ("anna blue/ivory area rug", &[Tag::NN, Tag::JJ, Tag::SYM, Tag::NN, Tag::NN, Tag::NN], true),
        ("grey/green wide shoes", &[Tag::JJ, Tag::SYM, Tag::JJ, Tag::JJ, Tag::NNS], true),
    ] {
        let mut words = Vec::new();
        crate::words::split(text, &mut words);
        let mut found = Vec::new();
        phrases(text, &words, &mut tags.to_vec(), &mut found);
        assert_eq!(found == [Phrase { start: 0, end: words.len() }], whole, "{text}: {found:?}");
    }
}

#[test]
fn a_title_is_not_searched_beyond_its_length() {
    let title = vec!["soft/JJ bed/NN"; 40].join(" ");
    let whole = |line: &str| line.matches('[').count() == 1;
    assert!(whole(&bracketed(&title)), "one phrase");
    assert!(!whole(&bracketed(&format!("{title} sleeps/VBZ"))), "not a title");
    let filler = vec!["of/IN"; 70].join(" ");
    assert!(whole(&bracketed(&format!("{title} {filler} sleeps/VBZ"))), "a verb far away");
}

#[test]
fn a_long_run_of_modifiers_without_a_noun_ends() {
    assert_eq!(bracketed(&vec!["red/JJ"; 5000].join(" ")), vec!["red"; 5000].join(" "));
}

#[test]
fn inches_and_feet_are_part_of_a_figure() {
    for (text, tags, expected) in [
        ("gared 3.5\" system", &[Tag::NNP, Tag::CD, Tag::CLOSE_QUOTE, Tag::NN][..], 1),
        ("gared 3.5 \" system", &[Tag::NNP, Tag::CD, Tag::CLOSE_QUOTE, Tag::NN], 2),
        ("\"top 5\" system", &[Tag::CLOSE_QUOTE, Tag::NN, Tag::CD, Tag::CLOSE_QUOTE, Tag::NN], 2),
    ] {
        let mut words = Vec::new();
        crate::words::split(text, &mut words);
        let mut found = Vec::new();
        phrases(text, &words, &mut tags.to_vec(), &mut found);
        assert_eq!(found.len(), expected, "{text}: {found:?}");
    }
}
