-- The accounts of a fleet: what a step reads of them, and how it is written.
--
-- One hash, `budget`, has it all, so that a step reads and writes once: `m` the numbers of the book, `a<day>:<path>` an account,
-- `r<path>` what was said about a swarm for every day, `s<key>` a spend. Beside it: `budget:due`, open reservations by when they
-- expire; `budget:ended`, the spends that have ended, the oldest first; `budget:accounts`, `<day> <path>` in that order.

local DAY = 86400000000
local WITHIN, WARNED, EXHAUSTED = 0, 1, 2

-- epoch, sequence, when something is due, since when frozen, reservations that are open or presumed, ended spends that are
-- remembered, how many have ended, accounts, swarms about which something was said, the oldest day that is kept; then the lives
-- of the server: epoch, sequence in the beginning.
local BOOK = '>I7I7I7I7I7I7I7I7I7I4'
local LIFE = '>I7I7'
local MOST_LIVES = 16
-- spent, held, presumed, level that was announced, whether it is exhausted, whether it is a session's
local ACCOUNT = '>I7I7I7BBB'
-- whether there is a limit, the limit, what it was thawed after, whether it is halted; then the reason
local RULE = '>BI7I7B'
-- state, what becomes of it, whether it was reserved, amount, until when, when it ended, day, session, trace
local SPEND = '>BBBI7I7I7I4ss'
-- cost, what remains, level, which account on the way up, what that has spent and may spend
local POSTED = '>I7I7BBI7I7'

local HELD, PRESUMED, LAPSED, RELEASED, SETTLED = 1, 2, 3, 4, 5
local PRESUME = 1

-- The settings of whoever calls, and what this step has read.
local S, book, spends, fields, changed
-- The number of this step: an account is read once in each.
local nth_step = 0
-- What was read before, by prefix of the fleet: its book, accounts by name, paths by session. As long as the server holds the
-- same bytes, they need not be taken apart anew.
local fleets, remembered_accounts, F = {}, 0
-- Whether the last step came to its end.
local is_clean = true
-- What this server process has seen itself of each fleet's book: its epoch and sequence.
local alive = {}

local ledgers = {}

local function read_ledger(text)
  local numbers = {}
  for number in string.gmatch(text, '%d+') do
    numbers[#numbers + 1] = tonumber(number)
  end
  ledgers[text] = { session_limit = numbers[1], warn_percent = numbers[2], kept_days = numbers[3], remembered = numbers[4],
    open = numbers[5], accounts = numbers[6], rules = numbers[7], window = numbers[8] }
  return ledgers[text]
end

local function day_of(time)
  return (time - time % DAY) / DAY
end

-- The oldest day whose accounts are kept: never one that was forgotten.
local function oldest_day()
  return at_least(day_of(now) - S.kept_days, book.oldest)
end

-- The account of a swarm on a day, as far as it is known.
local function account_of(day, swarm)
  local name = 'a' .. day .. ':' .. swarm
  local account = F.accounts[name]
  if not account then
    account = { name = name, rule = 'r' .. swarm, day = day, swarm = swarm, thawed = 0, packed = '', said = '' }
    F.accounts[name], remembered_accounts = account, remembered_accounts + 1
  end
  return account
end

-- The accounts of a swarm and of those that contain it, innermost first.
local function path_of(day, swarm)
  local path = F.paths[swarm]
  if not path or path.day ~= day then
    path = { day = day }
    local rest = swarm
    while rest do
      path[#path + 1] = account_of(day, rest)
      rest = string.match(rest, '^(.*)/[^/]*$')
    end
    F.paths[swarm], remembered_accounts = path, remembered_accounts + 1
  end
  return path
end

local function unpack_book(packed)
  local read, at = { lives = {}, packed = packed }, nil
  read.epoch, read.sequence, read.due, read.frozen, read.open, read.ended, read.ends, read.accounts, read.rules,
    read.oldest, at = struct.unpack(BOOK, packed)
  read.said = string.sub(packed, at)
  while at <= #packed do
    local life = {}
    life.epoch, life.begun, at = struct.unpack(LIFE, packed, at)
    read.lives[#read.lives + 1] = life
  end
  return read
end

local function empty_book()
  return { epoch = 0, sequence = 0, due = NEVER, frozen = 0, open = 0, ended = 0, ends = 0, accounts = 0, rules = 0, oldest = 0,
    lives = {}, said = '' }
end

local function unpack_account(account, packed)
  account.packed, account.exists = packed, packed and true or false
  if packed then
    account.spent, account.held, account.presumed, account.announced, account.exhausted, account.session =
      struct.unpack(ACCOUNT, packed)
  else
    account.spent, account.held, account.presumed, account.announced, account.exhausted, account.session = 0, 0, 0, 0, 0, 0
  end
end

local function unpack_rule(account, said)
  account.said, account.limit, account.halted, account.thawed = said, nil, nil, 0
  if said then
    local limited, limit, thawed, halted, at = struct.unpack(RULE, said)
    account.limit, account.thawed = limited == 1 and limit or nil, thawed
    account.halted = halted == 1 and string.sub(said, at) or nil
  end
end

local function keep_spend(key, packed)
  local spend = packed and { key = key } or false
  if spend then
    local at
    spend.state, spend.expiry, spend.reserved, spend.amount, spend.till, spend.ended, spend.day, spend.session, spend.trace, at =
      struct.unpack(SPEND, packed)
    if spend.state == SETTLED then
      spend.posted = string.sub(packed, at)
    end
  end
  spends[key] = spend
end

-- Takes an account, and what was said about it, as it was found.
local function found_account(account, packed, said)
  account.read = nth_step
  if not account.exists or account.packed ~= packed then
    unpack_account(account, packed)
  end
  if account.said ~= said then
    unpack_rule(account, said)
  end
end

-- Reads the book, a spend and the accounts of a path: what each step begins with.
local function read_first(key, path)
  local names = path.names
  if not names then
    names = { 'm', '' }
    for nth, account in ipairs(path) do
      names[2 * nth + 1], names[2 * nth + 2] = account.name, account.rule
    end
    path.names = names
  end
  names[2] = 's' .. key
  local found = call('HMGET', P .. 'budget', unpack(names))
  if not found[1] then
    -- What lies beside a book that is gone belongs to nobody.
    call('DEL', P .. 'budget:due', P .. 'budget:ended', P .. 'budget:accounts')
    F.book = empty_book()
  elseif not F.book or F.book.packed ~= found[1] then
    F.book = unpack_book(found[1])
  end
  book = F.book
  keep_spend(key, found[2])
  for nth, account in ipairs(path) do
    found_account(account, found[2 * nth + 1], found[2 * nth + 2])
  end
end

-- Reads these spends and the accounts of these paths, as far as this step has not done so.
local function read_more(wanted, keys)
  local names, unread = {}, {}
  for nth, key in ipairs(keys) do
    names[nth] = 's' .. key
  end
  for _, path in ipairs(wanted) do
    for _, account in ipairs(path) do
      if account.read ~= nth_step then
        account.read = nth_step
        unread[#unread + 1] = account
        names[#names + 1] = account.name
        names[#names + 1] = account.rule
      end
    end
  end
  if #names == 0 then
    return
  end
  local found = call('HMGET', P .. 'budget', unpack(names))
  for nth, key in ipairs(keys) do
    keep_spend(key, found[nth])
  end
  for nth, account in ipairs(unread) do
    found_account(account, found[#keys + 2 * nth - 1], found[#keys + 2 * nth])
  end
end

-- Begins with a book, a spend and the accounts of a path. Answers with the path.
local function open_book(key, day, swarm)
  S = ledgers[ARGV[6]] or read_ledger(ARGV[6])
  if not is_clean or remembered_accounts > 20000 then
    fleets, remembered_accounts = {}, 0
  end
  F = fleets[P]
  if not F then
    F = { accounts = {}, paths = {} }
    fleets[P] = F
  end
  is_clean, nth_step, spends, fields, changed = false, nth_step + 1, {}, {}, {}
  local path = path_of(day, swarm)
  read_first(key, path)
  return path
end

local function write_field(name, value)
  local at = #fields
  fields[at + 1], fields[at + 2] = name, value
end

local function save_account(account)
  if not account.exists then
    account.exists, book.accounts = true, book.accounts + 1
    call('ZADD', P .. 'budget:accounts', 0, string.format('%06d %s', account.day, account.swarm))
  end
  if account.saves ~= nth_step then
    account.saves, changed[#changed + 1] = nth_step, account
  end
end

local function save_rule(account)
  local was = account.said and 1 or 0
  if not account.limit and not account.halted and account.thawed == 0 then
    call('HDEL', P .. 'budget', account.rule)
    account.said = false
    book.rules, book.changed = at_least(book.rules - was, 0), true
  else
    book.rules, book.changed = book.rules + 1 - was, true
    account.said = struct.pack(RULE, account.limit and 1 or 0, account.limit or 0, account.thawed, account.halted and 1 or 0) ..
      (account.halted or '')
    write_field(account.rule, account.said)
  end
end

local function save_spend(spend)
  spends[spend.key] = spend
  write_field('s' .. spend.key, struct.pack(SPEND, spend.state, spend.expiry, spend.reserved, spend.amount, spend.till,
    spend.ended, spend.day, spend.session, spend.trace) .. (spend.posted or ''))
end

local function write_fields()
  for from = 1, #fields, 2000 do
    call('HSET', P .. 'budget', unpack(fields, from, at_most(from + 1999, #fields)))
  end
  fields = {}
end

-- The lives of the server have changed.
local function save_lives()
  local lives = {}
  for nth, life in ipairs(book.lives) do
    lives[nth] = struct.pack(LIFE, life.epoch, life.begun)
  end
  book.said, book.changed = table.concat(lives), true
end

local function save_book()
  for _, account in ipairs(changed) do
    account.packed = struct.pack(ACCOUNT, account.spent, account.held, account.presumed, account.announced, account.exhausted,
      account.session)
    write_field(account.name, account.packed)
  end
  if book.changed or #fields > 0 then
    book.changed = nil
    book.packed = struct.pack(BOOK, book.epoch, book.sequence, book.due, book.frozen, book.open, book.ended, book.ends,
      book.accounts, book.rules, book.oldest) .. book.said
    write_field('m', book.packed)
    write_fields()
  end
  local seen = alive[P]
  if seen then
    seen.epoch, seen.sequence = book.epoch, book.sequence
  else
    alive[P] = { epoch = book.epoch, sequence = book.sequence }
  end
  is_clean = true
end
