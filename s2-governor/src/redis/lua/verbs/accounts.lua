-- What people ask of accounts, and say about them.

-- limit, spent, held, presumed, level, why it is halted
local function balance(account, path)
  local rule = rules[account.swarm]
  local halted = is_frozen(path) and 'frozen' or rule.halted or account.exhausted == 1 and 'budget_exceeded' or false
  return { limit_of(account), account.spent, account.held, account.presumed, account.announced, halted }
end

-- What stands on the account of a swarm, which is a session as long as nothing is known of it.
local function balance_of(day, swarm)
  local account = accounts[account_name(day, swarm)]
  if not account.exists then
    account.session = 1
  end
  return balance(account, path_of(swarm))
end

-- balances: none, day or none, swarm.
function verbs.balances(_, day, swarm)
  if day < oldest_day() then
    return { 'not_retained', oldest_day() }
  end
  local answer = { balance_of(day, swarm) }
  local path = path_of(swarm)
  for nth = 2, #path do
    answer[nth] = balance(accounts[account_name(day, path[nth])], path_of(path[nth]))
  end
  return { 'balances', day, answer }
end

-- statement: none, day or none, swarm; one within it to go on after or none, limit.
function verbs.statement(_, day, swarm)
  if day < oldest_day() then
    return { 'not_retained', oldest_day() }
  end
  local from = ARGV[12] == '' and string.format('[%06d %s/', day, swarm) or string.format('(%06d %s', day, ARGV[12])
  local last = '(' .. string.format('%06d %s0', day, swarm)
  local found = call('ZRANGEBYLEX', P .. 'budget:accounts', from, last, 'LIMIT', 0, tonumber(ARGV[13]))
  local wanted, within = {}, {}
  for nth, member in ipairs(found) do
    wanted[nth] = { day, path_of(string.sub(member, 8)) }
  end
  for nth = 1, #wanted, 50 do
    local some = {}
    for place = nth, at_most(nth + 49, #wanted) do
      some[#some + 1] = wanted[place]
    end
    read_more(some, {})
  end
  for nth, each in ipairs(wanted) do
    local path = each[2]
    within[nth] = { path[1], balance(accounts[account_name(day, path[1])], path) }
  end
  return { 'statement', day, balance_of(day, swarm), within }
end

local function ruled(operation, swarm, params, severity)
  book.sequence, book.changed = book.sequence + 1, true
  journal { component = 'budget', operation = operation, subject = swarm, params = params, severity = severity }
end

-- limit: none, none, swarm; the amount or none, as text.
function verbs.limit(_, day, swarm)
  local rule, limit = rules[swarm], tonumber(ARGV[12])
  local account = accounts[account_name(day, swarm)]
  if rule.limit ~= limit then
    ruled('limit', swarm, { 'limit', ARGV[13] })
    rule.limit = limit
    save_rule(swarm)
    if account.exists then
      local level = level_of(account)
      account.announced = at_most(account.announced, level)
      if level < EXHAUSTED then
        account.exhausted = 0
      end
      announce_level(account)
      save_account(account)
    end
  end
  return { 'balances', day, { balance_of(day, swarm) } }
end

-- halt: none, none, swarm; reason.
function verbs.halt(_, day, swarm)
  local rule = rules[swarm]
  if rule.halted ~= ARGV[12] then
    ruled('halt', swarm, { 'reason', ARGV[12] }, 'HIGH')
    rule.halted = ARGV[12]
    save_rule(swarm)
  end
  return { 'balances', day, { balance_of(day, swarm) } }
end

-- resume: none, none, swarm.
function verbs.resume(_, day, swarm)
  local rule, account = rules[swarm], accounts[account_name(day, swarm)]
  local frozen = book.frozen > rule.thawed
  if rule.halted or account.exhausted == 1 or frozen then
    ruled('resume', swarm, {})
    rule.halted, rule.thawed = nil, book.frozen
    save_rule(swarm)
    if account.exhausted == 1 then
      account.exhausted = 0
      save_account(account)
    end
  end
  return { 'balances', day, { balance_of(day, swarm) } }
end
